"""A control for DOT: its change of weights without its change of memory."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdopt._typing import Balancer
from kdopt.balancers._linear import linear
from kdopt.balancers._reach import check_momenta
from kdopt.balancers._streams import streams


def gain_matched_sgd(
    momentum: float | jax.Array = 0.9, delta: float | jax.Array = 0.075
) -> Balancer:
    r"""Applies plain momentum to losses weighted by the steady-state gains of DOT.

    .. math::
        v \leftarrow \frac{1 - \mu}{1 - \mu + \Delta} \, g_{task}
                   + \frac{1 - \mu}{1 - \mu - \Delta} \, g_{dist} + \mu v, \qquad u = v

    In the steady state a constant gradient moves the parameters as under
    :func:`kdopt.dot`; before, DOT moves them more slowly along the distillation
    gradient and faster along that of the task. What DOT does better than this is due to
    its two memories, not to its weights.

    Args:
        momentum: :math:`\mu`.
        delta: :math:`\Delta`.

    Returns:
        A balancer of two losses, task first; follow it by the learning rate. For the
        same with one backward pass use :func:`kdopt.value_and_weighted_grad` with these
        weights, and ``optax.sgd`` with momentum.

    Raises:
        ValueError: If :math:`\mu \pm \Delta` is outside [0, 1).

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> state = kdopt.gain_matched_sgd().init(jnp.zeros(1))
        >>> print("{:.4f} {:.4f}".format(*kdopt.loss_weights(state)))
        0.5714 4.0000
    """
    check_momenta(momentum, momentum - delta, momentum + delta)
    gains = [(1 - momentum) / (1 - momentum + sign * delta) for sign in (1, -1)]
    one = streams((momentum,))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        del extra_args
        return one.update((updates,), state, params)

    trace = optax.GradientTransformationExtraArgs(one.init, update_fn)
    return optax.chain(linear(jnp.stack([jnp.asarray(g) for g in gains])), trace)
