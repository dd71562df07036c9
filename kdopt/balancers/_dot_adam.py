"""DOT for Adam: a first moment for each loss, a second moment of their sum."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._gram import combine
from kdopt._transform import per_loss_tuple
from kdopt._typing import Balancer, PerLossGrads, PresentLike
from kdopt.balancers._elements import hold_together
from kdopt.balancers._reach import (
    Reach,
    check_momenta,
    leaf_momenta,
    plus,
)


class DotAdamState(NamedTuple):
    """State of :func:`scale_by_dot_adam`.

    Attributes:
        count: Number of steps, int32.
        mu: First moments, one tree per loss.
        nu: Second moment of the summed gradient.
    """

    count: jax.Array
    mu: PerLossGrads
    nu: Any


def scale_by_dot_adam(
    b1: float | jax.Array = 0.9,
    b2: float | jax.Array = 0.999,
    eps: float | jax.Array = 1e-8,
    eps_root: float | jax.Array = 0.0,
    mu_dtype: Any = None,
    *,
    delta: float | jax.Array = 0.075,
    nesterov: bool = False,
    reach: Reach | None = None,
) -> Balancer:
    r"""Rescales as Adam does, with a first moment for each of two losses.

    With :math:`\beta_{task} = \beta_1 - \Delta`, :math:`\beta_{dist} = \beta_1 +
    \Delta` and :math:`g = g_{task} + g_{dist}`:

    .. math::
        m_i \leftarrow \beta_i m_i + (1 - \beta_i) \, g_i, \qquad
        \nu \leftarrow \beta_2 \nu + (1 - \beta_2) \, g^2, \qquad
        u = \frac{\sum_i m_i / (1 - \beta_i^t)}
                 {\sqrt{\nu / (1 - \beta_2^t) + \bar\varepsilon} + \varepsilon}

    Each moment has its own bias correction. They are averages, so :math:`\Delta`
    changes how long a gradient is remembered but not how much it counts.

    Args:
        b1: :math:`\beta_1`.
        b2: :math:`\beta_2`.
        eps: :math:`\varepsilon`.
        eps_root: :math:`\bar\varepsilon`.
        mu_dtype: Dtype of the first moments; by default that of the parameters.
        delta: :math:`\Delta`; 0 is Adam on the summed gradient.
        nesterov: Whether the first moments look ahead, as in NAdam.
        reach: Which parameters each loss reaches; leaves that only one reaches use
            plain :math:`\beta_1`. See :func:`kdopt.streams`.

    Returns:
        A balancer of two losses, task first; follow it by the learning rate.

    Raises:
        ValueError: If :math:`\beta_1 \pm \Delta` is outside [0, 1).

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.scale_by_dot_adam()
        >>> grads, state = (jnp.ones(1), jnp.ones(1)), tx.init(jnp.zeros(1))
        >>> update, state = tx.update(grads, state)
        >>> print(f"{update[0]:.4f} {state.mu[0][0]:.4f} {state.mu[1][0]:.4f}")
        1.0000 0.1750 0.0250

    References:
        Zhao et al., `DOT: A Distillation-Oriented Trainer
        <https://arxiv.org/abs/2307.08436>`_, ICCV 2023, Eq. 4-5 and footnote 3

    Notes:
        The paper says that DOT fits every optimiser with momentum but tests only SGD;
        what is split and what is shared here is our interpretation.

        An element keeps all its moments if a new one would not be finite, and its
        update is NaN.
    """
    momenta = (plus(b1, delta, -1), plus(b1, delta, 1))
    check_momenta(b1, *momenta)
    dtype = None if mu_dtype is None else jnp.dtype(mu_dtype)

    def init_fn(params: optax.Params) -> DotAdamState:
        mu = tuple(optax.tree.zeros_like(params, dtype=dtype) for _ in momenta)
        return DotAdamState(jnp.zeros((), jnp.int32), mu, optax.tree.zeros_like(params))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, DotAdamState]:
        del extra_args
        grads = per_loss_tuple(updates, params, len(momenta), present)
        count = jnp.asarray(optax.safe_increment(state.count))
        factors = leaf_momenta(
            momenta, b1, reach, count=state.count, grads=grads, params=params
        )
        total = jax.tree.leaves(combine(grads, jnp.ones(len(grads))))
        old = zip(*map(jax.tree.leaves, state.mu), strict=True)
        parts = zip(*map(jax.tree.leaves, grads), strict=True)
        combined, mus, nus = [], [], []
        for g, nu, gs, mu, betas in zip(
            total, jax.tree.leaves(state.nu), parts, old, factors, strict=True
        ):
            steps = [
                _first_moment(x, m, beta, count, nesterov)
                for x, m, beta in zip(gs, mu, betas, strict=True)
            ]
            numerator = functools.reduce(jnp.add, (hat for hat, _ in steps))
            second, denominator = _second_moment(g, nu, b2, eps, eps_root, count)
            update = (numerator / denominator).astype(g.dtype)
            moments = [*(m for _, m in steps), second]
            new, update = hold_together(moments, [*mu, nu], update)
            combined.append(update)
            mus.append(new[:-1])
            nus.append(new[-1])
        structure = jax.tree.structure(grads[0])
        columns = zip(*mus, strict=True) if mus else [()] * len(momenta)
        return jax.tree.unflatten(structure, combined), DotAdamState(
            count,
            tuple(jax.tree.unflatten(structure, column) for column in columns),
            jax.tree.unflatten(structure, nus),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _first_moment(
    g: jax.Array, mu: jax.Array, beta: Any, count: jax.Array, nesterov: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns one loss's share of the numerator, and its new moment."""
    dtype = accumulator_dtype(g, mu)
    b, t = jnp.asarray(beta, dtype), count.astype(dtype)
    g = g.astype(dtype)
    new = b * mu.astype(dtype) + (1 - b) * g
    if not nesterov:
        return new / (1 - b**t), new
    ahead = b * new / (1 - b ** (t + 1)) + (1 - b) * g / (1 - b**t)
    return ahead, new


def _second_moment(
    g: jax.Array, nu: jax.Array, b2: Any, eps: Any, eps_root: Any, count: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the new second moment, and the denominator."""
    dtype = accumulator_dtype(g, nu)
    b, t = jnp.asarray(b2, dtype), count.astype(dtype)
    new = b * nu.astype(dtype) + (1 - b) * g.astype(dtype) ** 2
    root = jnp.sqrt(new / (1 - b**t) + jnp.asarray(eps_root, dtype))
    return new, root + jnp.asarray(eps, dtype)


def dot_adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: float | jax.Array = 0.9,
    b2: float | jax.Array = 0.999,
    eps: float | jax.Array = 1e-8,
    eps_root: float | jax.Array = 0.0,
    mu_dtype: Any = None,
    *,
    delta: float | jax.Array = 0.075,
    nesterov: bool = False,
    reach: Reach | None = None,
) -> Balancer:
    r"""Builds Adam with first moments for the task and for the distillation gradient.

    See :func:`kdopt.scale_by_dot_adam` for the equation. With ``delta=0`` it is
    ``optax.adam`` on the summed gradient.

    Args:
        learning_rate: A number or a schedule.
        b1: Decay of the first moments.
        b2: Decay of the second moment.
        eps: Added to the denominator.
        eps_root: Added under its root.
        mu_dtype: Dtype of the first moments.
        delta: The task moment decays by ``b1 - delta``, that of distillation by
            ``b1 + delta``.
        nesterov: Whether the first moments look ahead.
        reach: Which parameters each loss reaches.

    Returns:
        An optimiser of two losses, task first: a balancer with its learning rate.

    Raises:
        ValueError: If ``b1 - delta`` or ``b1 + delta`` is outside [0, 1).

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.dot_adam(0.1)
        >>> grads, params = (jnp.ones(1), jnp.ones(1)), jnp.zeros(1)
        >>> updates, _ = tx.update(grads, tx.init(params), params)
        >>> print(f"{updates[0]:.4f}")
        -0.1000
    """
    core = scale_by_dot_adam(
        b1, b2, eps, eps_root, mu_dtype, delta=delta, nesterov=nesterov, reach=reach
    )
    return optax.chain(core, optax.scale_by_learning_rate(learning_rate))


def dot_adamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: float | jax.Array = 0.9,
    b2: float | jax.Array = 0.999,
    eps: float | jax.Array = 1e-8,
    eps_root: float | jax.Array = 0.0,
    mu_dtype: Any = None,
    weight_decay: float | jax.Array = 1e-4,
    mask: Any = None,
    *,
    delta: float | jax.Array = 0.075,
    nesterov: bool = False,
    reach: Reach | None = None,
) -> Balancer:
    r"""Builds AdamW with first moments for the task and for the distillation gradient.

    See :func:`kdopt.scale_by_dot_adam` for the equation. With ``delta=0`` it is
    ``optax.adamw`` on the summed gradient. Decay is decoupled, so it belongs to neither
    loss.

    Args:
        learning_rate: A number or a schedule.
        b1: Decay of the first moments.
        b2: Decay of the second moment.
        eps: Added to the denominator.
        eps_root: Added under its root.
        mu_dtype: Dtype of the first moments.
        weight_decay: Strength of the decay, times the learning rate.
        mask: Which parameters decay, as in ``optax.adamw``.
        delta: The task moment decays by ``b1 - delta``, that of distillation by
            ``b1 + delta``.
        nesterov: Whether the first moments look ahead.
        reach: Which parameters each loss reaches.

    Returns:
        An optimiser of two losses, task first: a balancer with its learning rate.

    Raises:
        ValueError: If ``b1 - delta`` or ``b1 + delta`` is outside [0, 1).

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.dot_adamw(0.1, weight_decay=0.5)
        >>> grads, params = (jnp.ones(1), jnp.ones(1)), jnp.ones(1)
        >>> updates, _ = tx.update(grads, tx.init(params), params)
        >>> print(f"{updates[0]:.4f}")
        -0.1500
    """
    core = scale_by_dot_adam(
        b1, b2, eps, eps_root, mu_dtype, delta=delta, nesterov=nesterov, reach=reach
    )
    return optax.chain(
        core,
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
