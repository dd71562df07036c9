"""Gradient algebra: the only two passes over the gradients."""

import functools
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp

from kdopt._dtypes import accumulator_dtype
from kdopt._gram_rows import Parts, add_up, sum_group_on_cpu, sum_leaves_on_gpu
from kdopt._mesh import is_local, product_sharding
from kdopt._typing import Gram, PerLossGrads, Weights

SumGroup = Callable[[list[Parts]], list[jax.Array]]

# The cost of a smaller leaf is its kernel, not bandwidth: so a few share one, but not
# many, since compile time grows faster than the kernel.
_SMALL, _SHARED = 2**14, 8
# With more losses than this a matrix product takes over: it copies every gradient, but
# all pairs in one loop would take minutes to compile.
_FEW = 8


def gram(grads: PerLossGrads, *, axis_name: str | None = None) -> Gram:
    r"""Computes the Gram matrix of K gradient trees.

    .. math:: G_{ij} = \langle g_i, g_j \rangle

    Products are summed in float32 whatever the dtype of the gradients is (in float64 if
    they are float64), since a sum of 1e6 bfloat16 products has no correct digit. Every
    gradient is read once, for all K (K + 1) / 2 products; nothing is copied up to K =
    8, and each device sums its own shard of a sharded gradient.

    Args:
        grads: K trees of equal structure.
        axis_name: Mesh axis over which each gradient is *sharded*, inside
            ``jax.shard_map``: the partial matrices are summed over it. Leave it out
            under ``jax.jit`` with shardings, and for gradients that are replicated.

    Returns:
        The symmetric matrix ``[k, k]``.

    Raises:
        TypeError: If a gradient is complex.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> task = {"w": jnp.array([-4.0, 1.0, 1.0])}
        >>> distill = {"w": jnp.array([6.0, 1.0, 1.0])}
        >>> print(kdopt.gram((task, distill)))
        [[ 18. -22.]
         [-22.  38.]]

    Notes:
        Squares must fit float32: elements below 1e-19 count as zero, and a norm above
        1e19 gives an infinite entry, which balancers count as a step that is not
        finite. If gradients are that small or large, scale the losses or differentiate
        in float64.
    """
    leaves = [jax.tree.leaves(tree) for tree in grads]
    k = len(leaves)
    dtype = accumulator_dtype(*(leaf for tree in leaves for leaf in tree))
    columns = list(zip(*leaves, strict=True))
    if not columns:
        matrix = jnp.zeros((k, k), dtype)
    elif k > _FEW:
        products = (_product(dtype, group) for group in _groups(columns))
        matrix = functools.reduce(jnp.add, products)
    else:
        matrix = _symmetric(k, _upper(dtype, columns))
    return matrix if axis_name is None else jax.lax.psum(matrix, axis_name)


def combine(grads: PerLossGrads, weights: Weights):
    r"""Combines K gradient trees into one.

    .. math:: u = \sum_i w_i \, g_i

    Args:
        grads: K trees of equal structure.
        weights: Coefficients, ``[k]``.

    Returns:
        One tree; each leaf keeps its dtype and is summed in at least float32.

    Raises:
        TypeError: If a gradient is complex.

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


def _groups(leaves: Iterable[Parts]) -> list[list[Parts]]:
    """Groups small leaves of the same type; each large leaf stays alone."""
    alike: dict[object, list[Parts]] = {}
    for n, parts in enumerate(leaves):
        small = parts[0].size < _SMALL
        alike.setdefault(tuple(map(jax.typeof, parts)) if small else n, []).append(
            parts
        )
    return [
        group[start : start + _SHARED]
        for group in alike.values()
        for start in range(0, len(group), _SHARED)
    ]


def _pairs(k: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(k) for j in range(i, k)]


def _symmetric(k: int, upper: list[jax.Array]) -> Gram:
    """Builds a symmetric matrix from its upper triangle."""
    entries = dict(zip(_pairs(k), upper, strict=True))
    rows = [[entries[min(i, j), max(i, j)] for j in range(k)] for i in range(k)]
    return jnp.stack([jnp.stack(row) for row in rows])


def _upper(dtype: jnp.dtype, leaves: list[Parts]) -> list[jax.Array]:
    """Computes the inner products of all pairs i <= j."""
    products = functools.partial(_products, dtype)

    def plain(group: list[Parts]) -> list[jax.Array]:
        # One by one: over sharded axes they are added for all leaves before one
        # all-reduce.
        return [jnp.sum(array) for array in products(group)]

    def on_cpu(group: list[Parts]) -> list[jax.Array]:
        alone = len(group) == 1 and group[0][0].size < _SMALL
        if alone or len(group[0]) == 1:
            return plain(group)
        return sum_group_on_cpu(products, group)

    def by_group(sum_group: SumGroup, leaves: list[Parts]) -> list[jax.Array]:
        return add_up([sum_group(group) for group in _groups(leaves)])

    # Compilers for TPU read each leaf once for all the sums, and choose their shape.
    default = functools.partial(by_group, plain)
    on_gpu = default
    if all(is_local(part) for parts in leaves for part in parts):
        on_gpu = functools.partial(sum_leaves_on_gpu, products, dtype=dtype)
    return jax.lax.platform_dependent(
        leaves,
        cpu=functools.partial(by_group, on_cpu),
        cuda=on_gpu,
        rocm=on_gpu,
        default=default,
    )


def _products(dtype: jnp.dtype, group: Sequence[Parts]) -> list[jax.Array]:
    """Computes elementwise products of all pairs, added over a group of leaves."""
    wide = [[part.astype(dtype) for part in parts] for parts in group]
    return [
        functools.reduce(jnp.add, (parts[i] * parts[j] for parts in wide))
        for i, j in _pairs(len(group[0]))
    ]


def _product(dtype: jnp.dtype, group: list[Parts]) -> Gram:
    """Computes all inner products over a group of leaves by one matrix product."""
    *outer, last = group[0][0].shape or (1,)
    k = len(group[0])
    rows = [jnp.atleast_1d(part) for parts in group for part in parts]
    stacked = jnp.stack(rows, axis=-2).reshape(*outer, len(group), k, last)
    # Row by row, adding up the small products afterwards, is fastest, unless these
    # products outnumber the elements.
    leading = tuple(range(stacked.ndim - 2))
    by_row = last >= k or group[0][0].size < _SMALL
    batch = leading if by_row else ()
    contracted = (() if by_row else leading) + (stacked.ndim - 1,)
    products = jax.lax.dot_general(
        stacked,
        stacked,
        ((contracted, contracted), (batch, batch)),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=dtype,
        out_sharding=product_sharding(stacked, len(batch)),
    )
    return jnp.sum(products, tuple(range(len(batch))))
