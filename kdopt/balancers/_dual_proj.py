"""DualProj: the mean gradient, changed as little as possible to raise no loss."""

import jax

from kdopt._checks import (
    Preference,
    check_preference,
    check_range,
    preference_array,
)
from kdopt._cone import dual_cone_point, regularize
from kdopt._transform import from_gram, gram_only
from kdopt._typing import Balancer, Gram, Weights


def dual_proj_weights(
    gram: Gram,
    *,
    preference: Preference = None,
    norm_eps: float | jax.Array = 0.0,
    reg_eps: float | jax.Array = 0.0,
) -> Weights:
    r"""Returns the weights of the mean gradient projected onto the dual cone.

    .. math:: w = \arg\min_{v \ge p} \, v^\top
        \Big( \frac{G}{\mathrm{tr}\, G} + \varepsilon I \Big) v

    Without :math:`\varepsilon` the update :math:`J^\top w` is the nearest point to
    :math:`J^\top p` that has no negative inner product with a gradient.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        preference: :math:`p \ge 0`, ``[k]``; ``1 / K`` each by default.
        norm_eps: If the trace of ``gram`` is smaller, the weights are :math:`p`.
        reg_eps: :math:`\varepsilon`; keeps the weights small where gradients are nearly
            opposite, but lets losses with far shorter gradients than the others rise.

    Returns:
        Weights of at least :math:`p`, ``[k]``, by an active-set method, exact to
        rounding.

    Raises:
        ValueError: If there are not K preferences.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print("{:.4f} {:.4f}".format(*kdopt.dual_proj_weights(gram)))
        0.6111 0.5000

    References:
        Lopez-Paz and Ranzato, `Gradient Episodic Memory for Continual Learning
        <https://arxiv.org/abs/1706.08840>`_, NeurIPS 2017, Eq. 11;
        Quinton and Rey, `Jacobian Descent for Multi-Objective Optimization
        <https://arxiv.org/abs/2406.16232>`_, 2024, Proposition 1
    """
    p = preference_array(preference, len(gram), gram.dtype)
    return dual_cone_point(regularize(gram, norm_eps, reg_eps), p)


def dual_proj(
    *,
    num_losses: int = 2,
    preference: Preference = None,
    norm_eps: float | jax.Array = 0.0,
    reg_eps: float | jax.Array = 0.0,
    axis_name: str | None = None,
) -> Balancer:
    r"""Balances by projecting the mean gradient onto the dual cone (DualProj, GEM).

    Without conflict it is the mean gradient. With conflict it is the nearest direction
    in which no loss rises: the losses that would have risen stay where they are.

    Args:
        num_losses: K.
        preference: Relative importance of the losses, ``[k]``, not negative.
        norm_eps: See :func:`dual_proj_weights`; at 0 the method does not depend on the
            scale of the losses.
        reg_eps: See :func:`dual_proj_weights`.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`dual_proj_weights` for the equation. Weights are at least
        the preference and sum to at least one: use the learning rate of the mean loss.
        A zero gradient keeps its preference.

    Raises:
        ValueError: If a preference or an epsilon is negative.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.dual_proj()
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(3)))
        >>> print("{:.4f} {:.4f} {:.4f}".format(*update))
        0.5556 1.1111 1.1111

    Notes:
        TorchJD has ``norm_eps=1e-4`` and ``reg_eps=1e-4``, both off by default here.
        The first turns the method off for small gradients. With the second a loss may
        rise by up to ``reg_eps`` times its weight times the trace, which is a lot for a
        gradient that is far shorter than the others.
    """
    check_preference(preference, num_losses)
    check_range("norm_eps", norm_eps, 0.0)
    check_range("reg_eps", reg_eps, 0.0)
    weights_fn = gram_only(
        dual_proj_weights, preference=preference, norm_eps=norm_eps, reg_eps=reg_eps
    )
    return from_gram(weights_fn, num_losses, axis_name=axis_name)
