"""DOT for LARS: layer-wise rates from the summed gradient, then two buffers."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._gram import combine
from kdopt._transform import per_loss_tuple
from kdopt._typing import Balancer, PresentLike
from kdopt.balancers._dot import dot
from kdopt.balancers._reach import Reach, at


def dot_lars(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: float | jax.Array = 0.0,
    weight_decay_mask: Any = True,
    trust_coefficient: float | jax.Array = 0.001,
    eps: float | jax.Array = 0.0,
    trust_ratio_mask: Any = True,
    momentum: optax.ScalarOrSchedule = 0.9,
    nesterov: bool = False,
    *,
    delta: optax.ScalarOrSchedule = 0.075,
    reach: Reach | None = None,
) -> Balancer:
    r"""Builds LARS with momentum buffers for the task and the distillation gradient.

    For each leaf :math:`\theta` with :math:`g = g_{task} + \gamma \theta + g_{dist}`:

    .. math::
        \rho = c \frac{\lVert \theta \rVert}{\lVert g \rVert + \varepsilon}, \qquad
        v_{task} \leftarrow -\eta \rho \, (g_{task} + \gamma \theta)
            + (\mu - \Delta) \, v_{task}, \qquad
        v_{dist} \leftarrow -\eta \rho \, g_{dist} + (\mu + \Delta) \, v_{dist}

    and :math:`u = v_{task} + v_{dist}`. With ``delta=0`` it is ``optax.lars`` on the
    summed gradient. Weight decay goes into the task buffer, as in DOT.

    Args:
        learning_rate: :math:`\eta`, a number or a schedule.
        weight_decay: :math:`\gamma`.
        weight_decay_mask: Which parameters decay: a bool, a tree of them or a function
            from params to it.
        trust_coefficient: :math:`c`.
        eps: :math:`\varepsilon`.
        trust_ratio_mask: Which parameters use :math:`\rho`; for the others it is 1.
        momentum: :math:`\mu`.
        nesterov: Whether the buffers look ahead.
        delta: :math:`\Delta`.
        reach: Which parameters each loss reaches; see :func:`kdopt.streams`.

    Returns:
        An optimiser of two losses, task first: a balancer with its learning rate.

    Raises:
        ValueError: If :math:`\mu \pm \Delta` is outside [0, 1), or ``update`` was not
            given params.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.dot_lars(1.0)
        >>> grads, params = (jnp.ones(1), jnp.ones(1)), jnp.full(1, 3.0)
        >>> updates, _ = tx.update(grads, tx.init(params), params)
        >>> print(f"{updates[0]:.4f}")
        -0.0030

    References:
        Zhao et al., `DOT: A Distillation-Oriented Trainer
        <https://arxiv.org/abs/2307.08436>`_, ICCV 2023, footnote 3;
        You, Gitman and Ginsburg, `Large Batch Training of Convolutional Networks
        <https://arxiv.org/abs/1708.03888>`_, 2017, Algorithm 1

    Notes:
        The DOT paper tests only SGD; what is split here is our interpretation.
    """
    buffers = dot(momentum, delta, nesterov=nesterov, reach=reach)
    decay = optax.add_decayed_weights(weight_decay, weight_decay_mask)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        del extra_args
        if params is None:
            raise ValueError("dot_lars needs params: pass them to update.")
        task, distill = per_loss_tuple(updates, params, 2, present)
        task, _ = decay.update(task, decay.init(params), params)
        total = combine((task, distill), jnp.ones(2))
        chosen = trust_ratio_mask
        mask = chosen(params) if callable(chosen) else chosen
        flags = jax.tree.broadcast(mask, params)
        rate = at(learning_rate, state.count)

        def ratio(g: jax.Array, param: jax.Array, on: Any) -> jax.Array:
            dtype = accumulator_dtype(g, param)
            length, size = _norm(g, dtype), _norm(param, dtype)
            usable = (length > 0) & (size > 0) & on
            divisor = jnp.where(usable, length + jnp.asarray(eps, dtype), 1)
            trust = jnp.asarray(trust_coefficient, dtype) * size / divisor
            # Dividing a leaf of finite elements by an infinite norm would hide the
            # fault.
            trust = jnp.where(jnp.isfinite(length), trust, jnp.nan)
            return -jnp.asarray(rate, dtype) * jnp.where(usable, trust, 1)

        ratios = jax.tree.map(ratio, total, params, flags)
        scaled = tuple(jax.tree.map(_scale, tree, ratios) for tree in (task, distill))
        return buffers.update(scaled, state, params)

    return optax.GradientTransformationExtraArgs(buffers.init, update_fn)


def _norm(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(x.astype(dtype))))


def _scale(x: jax.Array, factor: jax.Array) -> jax.Array:
    return (x.astype(factor.dtype) * factor).astype(x.dtype)
