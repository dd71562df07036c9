"""Trimmed mean: for each parameter, drop the extreme gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._present import present_mask
from kdopt._transform import check_num_losses, per_loss_tuple
from kdopt._typing import Balancer, Mask, PresentLike


def trimmed_mean(*, num_losses: int = 3, num_trimmed: int = 1) -> Balancer:
    r"""Balances by the coordinate-wise trimmed mean.

    With :math:`g_{(1)} \le \dots \le g_{(K)}` the sorted values of one element:

    .. math:: u = \frac{1}{K - 2b} \sum_{i = b + 1}^{K - b} g_{(i)}

    It makes one pass over the gradients, sorting K values per element, and needs no
    communication under sharding. With n losses present, at most (n - 1) // 2 values are
    dropped at each end.

    Args:
        num_losses: K, at least ``2 * num_trimmed + 1``.
        num_trimmed: :math:`b`, how many values to drop at each end.

    Returns:
        A balancer; it has neither weights of the losses nor a state. Use the learning
        rate of the mean gradient.

    Raises:
        ValueError: If nothing would be left.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.trimmed_mean(num_losses=3)
        >>> grads = tuple(jnp.array(x) for x in ([1.0, 5.0], [2.0, -9.0], [9.0, 6.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(2)))
        >>> print(update)
        [2. 5.]

    References:
        Yin et al., `Byzantine-Robust Distributed Learning: Towards Optimal Statistical
        Rates <https://arxiv.org/abs/1803.01498>`_, ICML 2018, Definition 2
    """
    k = check_num_losses(num_losses)
    if not 0 <= 2 * num_trimmed < k:
        raise ValueError(
            f"num_trimmed must leave something of {k} losses: at most "
            f"{(k - 1) // 2}, got {num_trimmed}."
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        del extra_args
        grads = per_loss_tuple(updates, params, k, present)

        def trim(*parts: jax.Array) -> jax.Array:
            ordered = jnp.sort(jnp.stack(parts), axis=0)[num_trimmed : k - num_trimmed]
            mean = jnp.mean(ordered.astype(accumulator_dtype(ordered)), axis=0)
            return mean.astype(parts[0].dtype)

        def trim_present(mask: Mask, *parts: jax.Array) -> jax.Array:
            rows = jnp.stack(parts)
            column = (k,) + (1,) * (rows.ndim - 1)
            # NaN sorts last, after the values of the losses that are present.
            ordered = jnp.sort(jnp.where(mask.reshape(column), rows, jnp.nan), axis=0)
            count = jnp.sum(mask)
            cut = jnp.clip((count - 1) // 2, 0, num_trimmed)
            place = jnp.arange(k)
            middle = ((place >= cut) & (place < count - cut)).reshape(column)
            wide = ordered.astype(accumulator_dtype(ordered))
            total = jnp.sum(jnp.where(middle, wide, 0), axis=0)
            number = jnp.maximum(count - 2 * cut, 1).astype(wide.dtype)
            return (total / number).astype(parts[0].dtype)

        mask = present_mask(present, k)
        fn = trim if mask is None else functools.partial(trim_present, mask)
        return jax.tree.map(fn, *grads), state

    return optax.GradientTransformationExtraArgs(optax.identity().init, update_fn)
