"""Trimmed mean: for each parameter, drop the extreme gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._transform import check_num_losses, per_loss_tuple
from kdopt._typing import Balancer


def trimmed_mean(*, num_losses: int = 3, num_trimmed: int = 1) -> Balancer:
    r"""Balances by the coordinate-wise trimmed mean.

    With :math:`g_{(1)} \le \dots \le g_{(K)}` the sorted values of one element:

    .. math:: u = \frac{1}{K - 2b} \sum_{i = b + 1}^{K - b} g_{(i)}

    One pass over the gradients, with a sort of K values in it. Under sharding no
    communication is needed.

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
            f"num_trimmed must leave something of {k} losses, at most "
            f"{(k - 1) // 2}, got {num_trimmed}."
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        del extra_args
        grads = per_loss_tuple(updates, params, k)

        def trim(*parts: jax.Array) -> jax.Array:
            ordered = jnp.sort(jnp.stack(parts), axis=0)[num_trimmed : k - num_trimmed]
            mean = jnp.mean(ordered.astype(accumulator_dtype(ordered)), axis=0)
            return mean.astype(parts[0].dtype)

        return jax.tree.map(trim, *grads), state

    return optax.GradientTransformationExtraArgs(optax.identity().init, update_fn)
