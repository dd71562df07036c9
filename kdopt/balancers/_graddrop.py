"""GradDrop: pick a sign for each parameter, drop the gradients of the other sign."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._keys import carry_key
from kdopt._transform import check_num_losses, per_loss_tuple
from kdopt._typing import Balancer, PresentLike


class GradDropState(NamedTuple):
    """State of :func:`graddrop`: its random key, as raw data."""

    key_data: jax.Array


def graddrop(
    *,
    num_losses: int = 2,
    key: jax.Array,
    leak: float | tuple[float, ...] = 0.0,
    axis_name: str | None = None,
) -> Balancer:
    r"""Balances by gradient sign dropout (GradDrop).

    For each element separately, with :math:`U` uniform in [0, 1):

    .. math::
        P = \frac12 \Big( 1 + \frac{\sum_i g_i}{\sum_i |g_i|} \Big), \qquad
        M_i = [P > U] \, [g_i > 0] + [P < U] \, [g_i < 0], \qquad
        u = \sum_i \big( \ell_i + (1 - \ell_i) M_i \big) \, g_i

    It makes one pass over the gradients.

    Args:
        num_losses: K.
        key: Random key, kept in the state.
        leak: :math:`\ell_i` in [0, 1]: the share that always passes, one number or one
            per loss.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``: each shard then draws its own numbers.

    Returns:
        A balancer; it has no weights of the losses. Where all signs agree the update is
        the sum of the gradients: keep the learning rate of the sum.

    Raises:
        ValueError: If there is no key, or the leak is out of range.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.graddrop(key=jax.random.key(0))
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(3)))
        >>> print(update)
        [6. 2. 2.]

    References:
        Chen et al., `Just Pick a Sign: Optimizing Deep Multitask Models with Gradient
        Sign Dropout <https://arxiv.org/abs/2010.06808>`_, NeurIPS 2020, Algorithm 1

    Notes:
        The paper applies the rule to the activations of a layer, times their sign and
        summed over the batch; here, as in TorchJD, to the gradients of the parameters.
        A gradient that is not finite shows in the update; it cannot affect the state.
    """
    k = check_num_losses(num_losses)
    start_key, next_key = carry_key(key, "graddrop")
    leaks = leak if isinstance(leak, tuple) else (leak,) * k
    if len(leaks) != k or not all(0 <= share <= 1 for share in leaks):
        raise ValueError(
            f"leak must be a number in [0, 1], or {k} of them, one per loss, got "
            f"{leak!r}."
        )

    def init_fn(params: optax.Params) -> GradDropState:
        return GradDropState(start_key(params))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GradDropState]:
        del extra_args
        grads = per_loss_tuple(updates, params, k, present)
        data, use = next_key(state.key_data)
        if axis_name is not None:
            use = jax.random.fold_in(use, jax.lax.axis_index(axis_name))

        def drop(leaf_key: jax.Array, *parts: jax.Array) -> jax.Array:
            dtype = accumulator_dtype(*parts)
            wide = [part.astype(dtype) for part in parts]
            total = functools.reduce(jnp.add, wide)
            size = functools.reduce(jnp.add, [jnp.abs(part) for part in wide])
            purity = (1 + total / jnp.where(size > 0, size, 1)) / 2
            draw = jax.random.uniform(leaf_key, purity.shape, dtype)
            kept = [
                part
                * jnp.where(jnp.where(part > 0, purity > draw, purity < draw), 1, s)
                for part, s in zip(wide, leaks, strict=True)
            ]
            return functools.reduce(jnp.add, kept).astype(parts[0].dtype)

        leaves, structure = jax.tree.flatten(grads[0])
        keys = jax.tree.unflatten(structure, jax.random.split(use, len(leaves)))
        return jax.tree.map(drop, keys, *grads), GradDropState(data)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
