"""Dynamic lambda: the balancing parameter of a two-loss sum, set at every step."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp

from kdopt._checks import check_choice
from kdopt._lambda_weights import harmless_weights, rate_weights, vertex_weights
from kdopt._simplex import unit_gram
from kdopt._transform import from_gram
from kdopt._typing import Balancer, Gram, Scalar, Values, Weights

LambdaPolicy: TypeAlias = Literal[
    "fixed",
    "gradual",
    "fast",
    "target",
    "target_relative",
    "norm_balance",
    "safe",
    "cosine",
]


class _Step(NamedTuple):
    """Inputs of a policy; weights are those of the task and of distillation."""

    gram: Gram
    values: Values
    wanted: Weights
    previous: Weights
    target: Scalar
    ridge: Scalar


def _skip_zero(weights: Weights, step: _Step) -> Weights:
    """Gives a zero gradient no weight, so that it does not stop the other loss."""
    some = jnp.diagonal(step.gram) > 0
    alone = jnp.where(jnp.any(some), some.astype(weights.dtype), step.wanted)
    return jnp.where(jnp.all(some), weights, alone)


def _gradual(step: _Step) -> Weights:
    return _skip_zero(vertex_weights(step.gram, step.ridge, step.wanted), step)


def _fast(step: _Step) -> Weights:
    squares = jnp.diagonal(step.gram)
    longer = (squares > squares[::-1]).astype(squares.dtype)
    return jnp.where(jnp.any(longer > 0), longer, step.previous)


def _target(step: _Step) -> Weights:
    return rate_weights(step.gram, jnp.stack([step.target] * 2), step.previous)


def _target_relative(step: _Step) -> Weights:
    weights = rate_weights(step.gram, step.target * step.values, step.previous)
    return _skip_zero(weights, step)


def _norm_balance(step: _Step) -> Weights:
    lengths = jnp.sqrt(jnp.diagonal(step.gram))[::-1]
    total = jnp.sum(lengths)
    return _skip_zero(lengths / jnp.where(total > 0, total, 1), step)


def _safe(step: _Step) -> Weights:
    return harmless_weights(step.gram, step.wanted)


def _cosine(step: _Step) -> Weights:
    pull = jnp.clip(-unit_gram(step.gram)[0][0, 1], 0, 1)
    pulled = (1 - pull) * step.wanted + pull * _norm_balance(step)
    return _safe(step._replace(wanted=pulled))


_POLICIES: dict[str, Callable[[_Step], Weights]] = {
    "fixed": lambda step: step.wanted,
    "gradual": _gradual,
    "fast": _fast,
    "target": _target,
    "target_relative": _target_relative,
    "norm_balance": _norm_balance,
    "safe": _safe,
    "cosine": _cosine,
}


def dynamic_lambda_weights(
    gram: Gram,
    values: Values | None = None,
    *,
    policy: LambdaPolicy = "safe",
    lambda_: float | jax.Array = 0.9,
    previous: float | jax.Array | None = None,
    target: float | jax.Array = 0.0,
    ridge: float | jax.Array = 0.0,
) -> Weights:
    r"""Returns weights :math:`(1 - \lambda, \lambda)` by one of eight policies.

    With :math:`a = \lVert g_{dist} \rVert^2`, :math:`b = \lVert g_{task} \rVert^2`,
    :math:`c` their inner product, :math:`\lambda_0` the given ``lambda_`` and
    :math:`D(\lambda)` the predicted decrease (:func:`kdopt.loss_decrease`):

    ==================== ============================================================
    policy               :math:`\lambda`
    ==================== ============================================================
    ``fixed``            :math:`\lambda_0`
    ``gradual``          :math:`\mathrm{clip}((b - c)/(a + b - 2c), 0, 1)`, the argmin
                         of :math:`D`: both losses fall equally
    ``fast``             the argmax of :math:`D`: 1 if :math:`a > b`, 0 if :math:`a < b`
    ``target``           :math:`D(\lambda) = R`, the root nearest to the previous one
    ``target_relative``  :math:`D(\lambda) = R \, L_\lambda`, likewise
    ``norm_balance``     :math:`\sqrt b / (\sqrt a + \sqrt b)`, the bisector
    ``safe``             :math:`\lambda_0` clipped so that neither loss rises
    ``cosine``           from :math:`\lambda_0` towards the bisector as conflict grows,
                         :math:`\lambda_0 + \max(0, -\cos)(\lambda_{nb} - \lambda_0)`,
                         then clipped as ``safe``
    ==================== ============================================================

    Args:
        gram: Gram matrix of the gradients, task first, ``[2, 2]``.
        values: Loss values, ``[2]``; needed only by ``target_relative``.
        policy: One of the names above.
        lambda_: :math:`\lambda_0` in [0, 1].
        previous: Last :math:`\lambda`, or the last weights ``[2]``, to resolve ties and
            choose between roots; ``lambda_`` if None.
        target: :math:`R`: the wanted decrease (``target``, in units of the loss) or
            fraction of the loss (``target_relative``) per step, divided by the learning
            rate. If it is out of reach, the nearest attainable rate is used.
        ridge: For ``gradual``: pull towards :math:`\lambda_0` where the parabola is
            flat, see :func:`kdopt.lambda_vertex`.

    Returns:
        Non-negative weights of sum one, ``[2]``.

    Raises:
        ValueError: If the policy is unknown or lacks its values.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[38.0, -22.0], [-22.0, 18.0]])
        >>> for policy in ("gradual", "norm_balance", "safe"):
        ...     weights = kdopt.dynamic_lambda_weights(gram, policy=policy)
        ...     print(f"{policy:12} {weights[1]:.4f}")
        gradual      0.6000
        norm_balance 0.5923
        safe         0.6333

    References:
        Kim et al., `Importance Analysis for Dynamic Control of Balancing Parameter in a
        Simple Knowledge Distillation Setting <https://arxiv.org/abs/2505.06270>`_, 2025

    Notes:
        The paper shows that the decrease is a quadratic in lambda, and leaves the
        algorithm to future work. The policies are closed forms on that quadratic.
    """
    check_choice("policy", policy, get_args(LambdaPolicy))
    if policy == "target_relative" and values is None:
        raise ValueError("policy 'target_relative' needs the loss values.")
    wanted = _both(lambda_, gram.dtype)
    return _POLICIES[policy](
        _Step(
            gram=gram,
            values=jnp.zeros(2, gram.dtype) if values is None else values,
            wanted=wanted,
            previous=wanted if previous is None else _both(previous, gram.dtype),
            target=jnp.asarray(target, gram.dtype),
            ridge=jnp.asarray(ridge, gram.dtype),
        )
    )


def _both(lambda_: float | jax.Array, dtype: jnp.dtype) -> Weights:
    """Turns the weight of distillation into both weights; leaves two as they are."""
    lambda_ = jnp.asarray(lambda_, dtype)
    return lambda_ if lambda_.ndim else jnp.stack([1 - lambda_, lambda_])


def dynamic_lambda(
    *,
    policy: LambdaPolicy = "safe",
    lambda_: float | jax.Array = 0.9,
    target: float | jax.Array = 0.0,
    ridge: float | jax.Array = 0.0,
    ema: float | jax.Array = 0.0,
    axis_name: str | None = None,
) -> Balancer:
    r"""Sets the weight of the distillation loss at every step, from the Gram matrix.

    .. math::
        \lambda_t = \beta \lambda_{t-1} + (1 - \beta) \hat\lambda(G_t, L_t), \qquad
        u = (1 - \lambda_t) \, g_{task} + \lambda_t \, g_{dist}

    where :math:`\hat\lambda` is a policy of :func:`dynamic_lambda_weights`. The
    default, ``safe``, keeps your lambda as long as neither loss rises.

    Args:
        policy: Name of the policy.
        lambda_: Your lambda in [0, 1], also the value before the first step.
        target: Wanted decrease, for the two ``target`` policies.
        ridge: Pull towards ``lambda_``, for ``gradual``.
        ema: :math:`\beta` in [0, 1): smoothing over steps; 0 is none.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer of two losses, task first; weights sum to one. ``target_relative``
        needs ``values`` in ``update``.

    Raises:
        ValueError: If the policy is unknown, or a ``target`` policy has no target.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.dynamic_lambda(policy="norm_balance")
        >>> grads = (jnp.array([6.0, 1.0, 1.0]), jnp.array([-4.0, 1.0, 1.0]))
        >>> update, state = tx.update(grads, tx.init(jnp.zeros(3)))
        >>> print("{:.4f} {:.4f}".format(*state.loss_weights))
        0.4077 0.5923

    References:
        Kim et al., `Importance Analysis for Dynamic Control of Balancing Parameter in a
        Simple Knowledge Distillation Setting <https://arxiv.org/abs/2505.06270>`_,
        2025, Eq. 10-14
    """
    check_choice("policy", policy, get_args(LambdaPolicy))
    if policy.startswith("target") and isinstance(target, float) and target <= 0:
        raise ValueError(f"policy {policy!r} needs a positive target, got {target}.")

    def weights_fn(
        gram: Gram, values: Values | None, state: tuple[Scalar, Scalar]
    ) -> tuple[Weights, tuple[Scalar, Scalar]]:
        previous = jnp.stack(state)
        weights = dynamic_lambda_weights(
            gram,
            values,
            policy=policy,
            lambda_=lambda_,
            previous=previous,
            target=target,
            ridge=ridge,
        )
        decay = jnp.asarray(ema, gram.dtype)
        smooth = decay * previous + (1 - decay) * weights
        return smooth, (smooth[0], smooth[1])

    return from_gram(
        weights_fn,
        num_losses=2,
        needs_values=policy == "target_relative",
        initial_state=(1.0 - lambda_, 1.0 * lambda_),
        axis_name=axis_name,
    )
