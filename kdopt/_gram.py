"""Gradient algebra: the only two passes over the gradients."""

import functools

import jax
import jax.numpy as jnp

from kdopt._dtypes import accumulator_dtype
from kdopt._typing import Gram, PerLossGrads, Weights


def _inner(x: jax.Array, y: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return jnp.sum(x.astype(dtype) * y.astype(dtype))


def gram(grads: PerLossGrads, *, axis_name: str | None = None) -> Gram:
    r"""Computes the Gram matrix of K gradient trees.

    .. math:: G_{ij} = \langle g_i, g_j \rangle

    Products are summed in float32 whatever the dtype of the gradients is (in float64
    if they are float64), since a sum of 1e6 bfloat16 products has no correct digit.

    Args:
        grads: K trees of equal structure.
        axis_name: Mesh axis over which each gradient is *sharded*, inside
            ``jax.shard_map``: the partial matrices are summed over it. Leave it out
            under ``jax.jit`` with shardings, and for gradients that are replicated.

    Returns:
        The symmetric matrix ``[k, k]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> task = {"w": jnp.array([-4.0, 1.0, 1.0])}
        >>> distill = {"w": jnp.array([6.0, 1.0, 1.0])}
        >>> print(kdopt.gram((task, distill)))
        [[ 18. -22.]
         [-22.  38.]]
    """
    leaves = [jax.tree.leaves(tree) for tree in grads]
    k = len(leaves)
    dtype = accumulator_dtype(*(leaf for tree in leaves for leaf in tree))
    zero = jnp.zeros((), dtype)

    def entry(i: int, j: int) -> jax.Array:
        pairs = zip(leaves[i], leaves[j], strict=True)
        return functools.reduce(jnp.add, (_inner(x, y, dtype) for x, y in pairs), zero)

    upper = {(i, j): entry(i, j) for i in range(k) for j in range(i, k)}
    rows = [[upper[min(i, j), max(i, j)] for j in range(k)] for i in range(k)]
    matrix = jnp.stack([jnp.stack(row) for row in rows])
    return matrix if axis_name is None else jax.lax.psum(matrix, axis_name)


def combine(grads: PerLossGrads, weights: Weights):
    r"""Combines K gradient trees into one.

    .. math:: u = \sum_i w_i \, g_i

    Args:
        grads: K trees of equal structure.
        weights: Coefficients, ``[k]``.

    Returns:
        One tree; each leaf keeps its dtype, the sum is done in at least float32.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> print(kdopt.combine(grads, jnp.array([0.6, 0.4])))
        [0. 1. 1.]
    """

    def leaf(*parts: jax.Array) -> jax.Array:
        dtype = accumulator_dtype(*parts)
        terms = (
            w.astype(dtype) * g.astype(dtype)
            for w, g in zip(weights, parts, strict=True)
        )
        return functools.reduce(jnp.add, terms).astype(parts[0].dtype)

    return jax.tree.map(leaf, *grads)
