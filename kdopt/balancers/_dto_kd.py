"""DTO-KD: distillation as two-objective optimisation on log-losses."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from kdopt._log_losses import Bounds, gaps_above
from kdopt._simplex import affine_min_norm_point, leave_out, min_norm_point
from kdopt._transform import from_gram
from kdopt._typing import Balancer, Gram, Values, Weights


def dto_kd_weights(
    gram: Gram,
    values: Values,
    *,
    min_losses: Bounds = 0.0,
    eps: float | jax.Array = 1e-8,
    simplex: bool = True,
    rescale: Literal["none", "convex"] = "none",
) -> Weights:
    r"""Returns weights that decrease all log-losses equally.

    With :math:`h_i = \nabla \log (L_i - b_i) = g_i / (L_i - b_i)`:

    .. math::
        \pi = \arg\min_{\pi \ge 0, \, \sum_i \pi_i = 1}
              \Big\lVert \sum_i \pi_i h_i \Big\rVert^2, \qquad
        w_i = \frac{\pi_i}{L_i - b_i}

    so that :math:`\sum_i w_i g_i = \sum_i \pi_i h_i`.

    Args:
        gram: Gram matrix of the raw gradients :math:`g_i`, ``[k, k]``.
        values: Loss values :math:`L_i`, ``[k]``.
        min_losses: Lower bounds :math:`b_i`, a number or ``[k]``: for a cross-entropy
            against soft targets, the entropy of the teacher.
        eps: Floor of positive :math:`L_i - b_i`.
        simplex: False drops the constraint :math:`\pi \ge 0`, which is the closed form
            of the theorem taken literally. Parallel gradients then give a zero update.
        rescale: ``"convex"`` divides the weights by their sum, which keeps the scale of
            the raw gradients and needs ``simplex``: without it the sum may be negative,
            and all losses would rise; ``"none"`` is the paper's update, which grows as
            :math:`1/L`. The scale matters to SGD, not to Adam.

    Returns:
        Weights of the raw gradients, ``[k]``. Losses must be above their bounds to have
        a logarithm: one that is exactly 0 counts as absent and has no weight; any other
        makes the weights NaN.

    Raises:
        ValueError: If ``rescale`` is neither of the two, or ``"convex"`` without
            ``simplex``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print(kdopt.dto_kd_weights(gram, jnp.array([1.0, 2.0])))
        [0.41414142 0.2929293 ]

    References:
        Hayder et al., DTO-KD: Dynamic Trade-off Optimization for Effective Knowledge
        Distillation, ICLR 2026, Eq. 9 (with the simplex) and Theorem 3.1 (without)
    """
    _check(simplex, rescale)
    found = gaps_above(values, min_losses, eps)
    solve = min_norm_point if simplex else affine_min_norm_point
    weights = found.settle(solve(leave_out(gram, found.usable), found.gaps))
    return weights / jnp.sum(weights) if rescale == "convex" else weights


def _check(simplex: bool, rescale: str) -> None:
    if rescale not in ("none", "convex"):
        raise ValueError(f"rescale must be 'none' or 'convex', got {rescale!r}.")
    if rescale == "convex" and not simplex:
        raise ValueError(
            "rescale='convex' divides the weights by their sum, which may be negative "
            "with simplex=False: leave simplex at True, or take rescale='none'."
        )


def dto_kd(
    *,
    num_losses: int = 2,
    min_losses: Bounds = 0.0,
    eps: float | jax.Array = 1e-8,
    simplex: bool = True,
    rescale: Literal["none", "convex"] = "none",
    axis_name: str | None = None,
) -> Balancer:
    r"""Balances by equal relative decrease of the losses (DTO-KD, exact form).

    To first order every loss falls by the same *fraction*,
    :math:`\eta \lVert u \rVert^2`, or by more where :math:`\pi` is at a bound. Constant
    factors of the losses (temperature squared, hand-set weights) change nothing;
    constant offsets do, see ``min_losses``. ``update`` needs ``values``, which must be
    above their bounds: a loss of exactly 0 counts as absent, and on a step with any
    other the balancer reuses its last weights and counts the step.

    Args:
        num_losses: K, at least 2.
        min_losses: Lower bounds of the losses, a number or ``[k]``.
        eps: Floor of loss minus bound.
        simplex: See :func:`dto_kd_weights`.
        rescale: See :func:`dto_kd_weights`: take ``"convex"`` with an SGD schedule
            tuned for a plain sum of losses.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`dto_kd_weights` for the equation.

    Raises:
        ValueError: If ``num_losses`` is below 2, ``rescale`` is unknown, or
            ``"convex"`` without ``simplex``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.dto_kd(rescale="convex")
        >>> params = jnp.zeros(3)
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> values = (1.0, 2.0)
        >>> update, state = tx.update(grads, tx.init(params), params, values=values)
        >>> print(state.loss_weights)
        [0.5857143 0.4142857]

    References:
        Hayder et al., DTO-KD: Dynamic Trade-off Optimization for Effective Knowledge
        Distillation, ICLR 2026, Algorithm 1

    Notes:
        The paper states the problem with ``pi >= 0`` and solves it without. The
        unclipped solution leaves the simplex whenever the cosine of the gradients
        exceeds the ratio of their lengths, and stalls when they are parallel, so the
        exact minimiser on the simplex is the default.
    """
    if num_losses == 1:
        raise ValueError("dto_kd trades losses off: num_losses must be at least 2.")

    _check(simplex, rescale)

    def weights_fn(gram: Gram, values: Values, state: Any) -> tuple[Weights, Any]:
        weights = dto_kd_weights(
            gram,
            values,
            min_losses=min_losses,
            eps=eps,
            simplex=simplex,
            rescale=rescale,
        )
        return weights, state

    return from_gram(weights_fn, num_losses, needs_values=True, axis_name=axis_name)
