"""PCGrad: remove the component of each gradient that opposes another."""

import jax
import jax.numpy as jnp

from kdopt._keys import carry_key, check_key
from kdopt._linalg import dot
from kdopt._simplex import unit_gram
from kdopt._transform import check_num_losses, from_gram, gram_only
from kdopt._typing import Balancer, Gram, Weights


def pcgrad_weights(gram: Gram, key: jax.Array | None = None) -> Weights:
    r"""Returns the weights of the sum of projected gradients.

    Each gradient in turn loses its component along every other one, in random order,
    where that component opposes it; then all are added up:

    .. math::
        \hat g_i \leftarrow \hat g_i
            - \frac{\min(0, \langle \hat g_i, g_j \rangle)}{\lVert g_j \rVert^2} g_j
            \quad \text{for } j \ne i \text{ in random order}, \qquad
        u = \sum_i \hat g_i

    For two losses, with :math:`a = G_{00}`, :math:`b = G_{11}`, :math:`c = G_{01}`:
    :math:`w = \big(1 + \max(0, -c / a), \; 1 + \max(0, -c / b)\big)`.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        key: Random key for the order; not needed for two losses.

    Returns:
        Weights of at least one, ``[k]``.

    Raises:
        ValueError: If there are more than two losses and no key.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print("{:.4f} {:.4f}".format(*kdopt.pcgrad_weights(gram)))
        2.2222 1.5789

    References:
        Yu et al., `Gradient Surgery for Multi-Task Learning
        <https://arxiv.org/abs/2001.06782>`_, NeurIPS 2020, Algorithm 1
    """
    k = len(gram)
    cosines, norms, active = unit_gram(gram)
    if k <= 2:
        orders = jnp.broadcast_to(jnp.arange(k), (k, k))
    else:
        keys = jax.random.split(check_key(key, "pcgrad of more than two losses"), k)
        orders = jax.vmap(jax.random.permutation, in_axes=(0, None))(keys, k)

    def surgery(row: jax.Array, order: jax.Array) -> Weights:
        def project(part: Weights, j: jax.Array) -> tuple[Weights, None]:
            against = jnp.where(j == row, 0, jnp.minimum(dot(cosines[j], part), 0))
            return part.at[j].add(-against), None

        start = (jnp.arange(k) == row).astype(gram.dtype)
        return jax.lax.scan(project, start, order)[0]

    parts = jax.vmap(surgery)(jnp.arange(k), orders)
    return jnp.where(active, dot(norms, parts) / norms, 1)


def pcgrad(
    *,
    num_losses: int = 2,
    key: jax.Array | None = None,
    axis_name: str | None = None,
) -> Balancer:
    """Balances by gradient surgery (PCGrad).

    With two losses the update raises neither, to first order; with more the last
    projections may undo the first. Without conflict it is the plain sum. Opposite
    gradients give zero.

    Args:
        num_losses: K.
        key: Random key for the order of projections, kept in the state; needed for
            three or more losses.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`pcgrad_weights` for the equation. Weights are 1 without
        conflict and grow with it, so their sum is at least K: keep the learning rate
        of the plain sum. A zero gradient has weight 1.

    Raises:
        ValueError: If there are more than two losses and no key.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.pcgrad(num_losses=3, key=jax.random.key(0))
        >>> grads = jnp.array([-4.0, 1.0]), jnp.array([6.0, 1.0]), jnp.array([0.0, 1.0])
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(2)))
        >>> print(f"{update[0]:.3f} {update[1]:.3f}")
        0.318 4.975
    """
    k = check_num_losses(num_losses)
    if k <= 2:
        return from_gram(gram_only(pcgrad_weights), k, axis_name=axis_name)
    start_key, next_key = carry_key(key, "pcgrad of more than two losses")

    def weights_fn(gram: Gram, _: None, data: jax.Array) -> tuple[Weights, jax.Array]:
        data, use = next_key(data)
        return pcgrad_weights(gram, use), data

    return from_gram(weights_fn, k, initial_state=start_key, axis_name=axis_name)
