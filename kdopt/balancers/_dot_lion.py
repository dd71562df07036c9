"""DOT for Lion: the sign of a sum of two momenta with different decays."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._transform import per_loss_tuple
from kdopt._typing import Balancer, PerLossGrads, PresentLike
from kdopt.balancers._elements import hold_together
from kdopt.balancers._reach import (
    Reach,
    at,
    check_momenta,
    leaf_momenta,
    plus,
)


class DotLionState(NamedTuple):
    """State of :func:`scale_by_dot_lion`.

    Attributes:
        count: Number of steps, int32.
        mu: Momenta, one tree per loss.
    """

    count: jax.Array
    mu: PerLossGrads


def scale_by_dot_lion(
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.99,
    mu_dtype: Any = None,
    *,
    delta: optax.ScalarOrSchedule = 0.0075,
    reach: Reach | None = None,
) -> Balancer:
    r"""Rescales as Lion does, with a momentum for each of two losses.

    With :math:`\beta_{task} = \beta_2 - \Delta` and :math:`\beta_{dist} = \beta_2 +
    \Delta`:

    .. math::
        u = \mathrm{sign} \Big( \sum_i (1 - \beta_1) \, g_i + \beta_1 m_i \Big), \qquad
        m_i \leftarrow \beta_i m_i + (1 - \beta_i) \, g_i

    The memory of Lion is set by :math:`\beta_2`, which is therefore split. The default
    :math:`\Delta` makes one memory 7 times as long as the other, as in
    :func:`kdopt.dot`.

    Args:
        b1: :math:`\beta_1`, a number or a schedule.
        b2: :math:`\beta_2`, a number or a schedule.
        mu_dtype: Dtype of the momenta; by default that of the parameters.
        delta: :math:`\Delta`; 0 is Lion on the summed gradient.
        reach: Which parameters each loss reaches; leaves that only one reaches use
            plain :math:`\beta_2`. See :func:`kdopt.streams`.

    Returns:
        A balancer of two losses, task first; follow it by the learning rate.

    Raises:
        ValueError: If :math:`\beta_2 \pm \Delta` is outside [0, 1).

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.scale_by_dot_lion()
        >>> grads, state = (jnp.ones(1), -jnp.ones(1) / 2), tx.init(jnp.zeros(1))
        >>> update, state = tx.update(grads, state)
        >>> print(f"{update[0]:.0f} {state.mu[0][0]:.5f} {state.mu[1][0]:.5f}")
        1 0.01750 -0.00125

    References:
        Zhao et al., `DOT: A Distillation-Oriented Trainer
        <https://arxiv.org/abs/2307.08436>`_, ICCV 2023, footnote 3;
        Chen et al., `Symbolic Discovery of Optimization Algorithms
        <https://arxiv.org/abs/2302.06675>`_, NeurIPS 2023, Algorithm 2

    Notes:
        The DOT paper tests only SGD; what is split here is our interpretation.

        An element keeps both momenta if a new one would not be finite, and its update,
        otherwise a sign, is NaN.
    """
    momenta = (plus(b2, delta, -1), plus(b2, delta, 1))
    check_momenta(b1, b2, *momenta)
    dtype = None if mu_dtype is None else jnp.dtype(mu_dtype)

    def init_fn(params: optax.Params) -> DotLionState:
        mu = tuple(optax.tree.zeros_like(params, dtype=dtype) for _ in momenta)
        return DotLionState(jnp.zeros((), jnp.int32), mu)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, DotLionState]:
        del extra_args
        grads = per_loss_tuple(updates, params, len(momenta), present)
        factors = leaf_momenta(
            momenta, b2, reach, count=state.count, grads=grads, params=params
        )
        look = at(b1, state.count)
        old = zip(*map(jax.tree.leaves, state.mu), strict=True)
        parts = zip(*map(jax.tree.leaves, grads), strict=True)
        signs, mus = [], []
        for gs, ms, betas in zip(parts, old, factors, strict=True):
            mixed = [_mix(g, m, look) for g, m in zip(gs, ms, strict=True)]
            total = functools.reduce(jnp.add, mixed)
            # The sign of an infinite sum would hide the fault.
            sign = jnp.where(jnp.isfinite(total), jnp.sign(total), jnp.nan)
            moved = [_mix(g, m, b) for g, m, b in zip(gs, ms, betas, strict=True)]
            new, sign = hold_together(moved, ms, sign.astype(gs[0].dtype))
            signs.append(sign)
            mus.append(new)
        structure = jax.tree.structure(grads[0])
        columns = zip(*mus, strict=True) if mus else [()] * len(momenta)
        return jax.tree.unflatten(structure, signs), DotLionState(
            jnp.asarray(optax.safe_increment(state.count)),
            tuple(jax.tree.unflatten(structure, column) for column in columns),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _mix(g: jax.Array, m: jax.Array, beta: Any) -> jax.Array:
    dtype = accumulator_dtype(g, m)
    b = jnp.asarray(beta, dtype)
    return (1 - b) * g.astype(dtype) + b * m.astype(dtype)


def dot_lion(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.99,
    mu_dtype: Any = None,
    weight_decay: float | jax.Array = 1e-3,
    mask: Any = None,
    *,
    delta: optax.ScalarOrSchedule = 0.0075,
    reach: Reach | None = None,
) -> Balancer:
    r"""Builds Lion with momenta for the task and the distillation gradient.

    See :func:`kdopt.scale_by_dot_lion` for the equation. With ``delta=0`` it is
    ``optax.lion`` on the summed gradient.

    Args:
        learning_rate: A number or a schedule.
        b1: Share of the momenta in the update.
        b2: Decay of the momenta.
        mu_dtype: Dtype of the momenta.
        weight_decay: Strength of the decay, times the learning rate.
        mask: Which parameters decay, as in ``optax.lion``.
        delta: The task momentum decays by ``b2 - delta``, that of distillation by
            ``b2 + delta``.
        reach: Which parameters each loss reaches.

    Returns:
        An optimiser of two losses, task first: a balancer with its learning rate.

    Raises:
        ValueError: If ``b2 - delta`` or ``b2 + delta`` is outside [0, 1).

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.dot_lion(0.1)
        >>> grads, params = (jnp.ones(1), jnp.ones(1)), jnp.zeros(1)
        >>> updates, _ = tx.update(grads, tx.init(params), params)
        >>> print(f"{updates[0]:.4f}")
        -0.1000
    """
    return optax.chain(
        scale_by_dot_lion(b1, b2, mu_dtype, delta=delta, reach=reach),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
