"""MGDA: the point of least norm in the convex hull of the gradients."""

from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from kdopt._checks import check_choice, check_range
from kdopt._log_losses import gaps_above
from kdopt._simplex import leave_out, min_norm_point, unit_gram
from kdopt._transform import from_gram
from kdopt._typing import Balancer, Gram, Values, Weights

Normalization: TypeAlias = Literal["none", "norm", "loss", "loss_and_norm"]

LEAST_VALUE = 1e-8
"""Floor of the loss values by which gradients are divided."""


def min_norm_weights(
    gram: Gram,
    values: Values | None = None,
    *,
    normalize: Normalization | float | jax.Array = "none",
) -> Weights:
    r"""Returns the weights of the convex combination of least norm.

    .. math::
        \pi = \arg\min_{\pi \ge 0, \, \sum_i \pi_i = 1}
              \Big\lVert \sum_i \pi_i \frac{g_i}{c_i} \Big\rVert^2, \qquad
        w_i = \frac{\pi_i}{c_i}

    with :math:`c_i` of 1, the norm :math:`\lVert g_i \rVert` or a power
    of it, the loss :math:`L_i`, or
    the product of the two. For two losses and :math:`c_i = 1`, with
    :math:`a = G_{00}`, :math:`b = G_{11}`, :math:`c = G_{01}`:
    :math:`w_1 = \mathrm{clip}\big((a - c) / (a + b - 2c), 0, 1\big)`.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        values: Loss values, ``[k]``; needed to normalize by loss.
        normalize: What the gradients are first divided by: ``"none"``, ``"norm"``,
            ``"loss"`` or ``"loss_and_norm"``; or a number p for
            :math:`\lVert g_i \rVert^p`, between ``"none"`` (0) and ``"norm"`` (1).

    Returns:
        Non-negative weights, ``[k]``, which sum to one if nothing is normalized.
        Accurate to rounding: closed form for two losses, active set for more. Losses to
        divide by must be positive: one that is exactly 0 counts as absent and has no
        weight; a negative one makes the weights NaN.

    Raises:
        ValueError: If ``normalize`` is unknown or lacks its values.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print(kdopt.min_norm_weights(gram))
        [0.6 0.4]

    References:
        Désidéri, `Multiple-gradient descent algorithm (MGDA)
        <https://doi.org/10.1016/j.crma.2012.03.014>`_, 2012;
        Sener and Koltun, `Multi-Task Learning as Multi-Objective Optimization
        <https://arxiv.org/abs/1810.04650>`_, NeurIPS 2018, Eq. 3;
        `GAPO <https://arxiv.org/abs/2507.01915>`_, 2025 (powers of the norms)
    """
    if not isinstance(normalize, str):
        return min_norm_point(
            gram, unit_gram(gram)[1] ** jnp.asarray(normalize, gram.dtype)
        )
    check_choice("normalize", normalize, get_args(Normalization))
    if normalize == "none":
        return min_norm_point(gram)
    scales = jnp.ones(len(gram), gram.dtype)
    if normalize in ("norm", "loss_and_norm"):
        scales = unit_gram(gram)[1]
    if normalize in ("loss", "loss_and_norm"):
        if values is None:
            raise ValueError(f"normalize={normalize!r} needs the loss values.")
        found = gaps_above(values.astype(gram.dtype), 0.0, LEAST_VALUE)
        kept = leave_out(gram, found.usable)
        return found.settle(min_norm_point(kept, scales * found.gaps))
    return min_norm_point(gram, scales)


def min_norm(
    *,
    num_losses: int = 2,
    normalize: Normalization | float | jax.Array = "none",
    axis_name: str | None = None,
) -> Balancer:
    r"""Balances by multiple-gradient descent (MGDA).

    To first order every loss with positive weight falls by
    :math:`\eta \lVert u \rVert^2` and the others by more (the losses divided by
    :math:`c_i`, if the gradients are normalized). It is zero exactly at
    Pareto-stationary points. Its length is at most that of the shortest gradient, so
    learning rates are larger than for a sum of losses.

    Args:
        num_losses: K.
        normalize: See :func:`min_norm_weights`; ``"loss"`` (the rule of
            :func:`kdopt.dto_kd`) and ``"loss_and_norm"`` need ``values`` in ``update``.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`min_norm_weights` for the equation. Weights sum to one
        if nothing is normalized; else they are of order :math:`1 / c_i`.

    Raises:
        ValueError: If ``num_losses`` is not a positive int or ``normalize`` unknown.

    Examples:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import kdopt
        >>> tx = optax.chain(kdopt.min_norm(), optax.sgd(0.1))
        >>> params = jnp.zeros(3)
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> print(updates)
        [-0.  -0.1 -0.1]

    Notes:
        A gradient that is exactly zero is left out. The original would give it all the
        weight and stop: then a converged distillation loss would end the training. The
        authors' code keeps the two weights within [0.001, 0.999]; here they may reach 0
        and 1.
    """
    if isinstance(normalize, str):
        check_choice("normalize", normalize, get_args(Normalization))
    check_range("normalize", normalize, 0.0)

    def weights_fn(gram: Gram, values: Values | None, state: tuple[()]):
        return min_norm_weights(gram, values, normalize=normalize), state

    return from_gram(
        weights_fn,
        num_losses,
        needs_values=isinstance(normalize, str) and "loss" in normalize,
        axis_name=axis_name,
    )
