"""UPGrad: each gradient projected onto the dual cone, then the mean of all."""

import jax
import jax.numpy as jnp

from kdopt._checks import (
    Preference,
    check_preference,
    check_range,
    preference_array,
)
from kdopt._cone import dual_cone_point, regularize
from kdopt._transform import from_gram, gram_only
from kdopt._typing import Balancer, Gram, Weights


def upgrad_weights(
    gram: Gram,
    *,
    preference: Preference = None,
    norm_eps: float | jax.Array = 0.0,
    reg_eps: float | jax.Array = 0.0,
) -> Weights:
    r"""Returns the weights of the mean of projected gradients.

    .. math:: w = \sum_i \arg\min_{v \ge p_i e_i} \, v^\top
        \Big( \frac{G}{\mathrm{tr}\, G} + \varepsilon I \Big) v

    Without :math:`\varepsilon` each term is the nearest vector to :math:`p_i g_i` that
    has no negative inner product with a gradient. For two losses :math:`w` is half of
    PCGrad's.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        preference: :math:`p \ge 0`, ``[k]``; ``1 / K`` each by default.
        norm_eps: If the trace of ``gram`` is smaller, the weights are :math:`p`.
        reg_eps: :math:`\varepsilon`; keeps the weights small where gradients are nearly
            opposite, but lets losses with far shorter gradients than the others rise.

    Returns:
        Weights of at least :math:`p`, ``[k]``: by K parallel active-set searches, exact
        to rounding.

    Raises:
        ValueError: If there are not K preferences.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print("{:.4f} {:.4f}".format(*kdopt.upgrad_weights(gram)))
        1.1111 0.7895

    References:
        Quinton and Rey, `Jacobian Descent for Multi-Objective Optimization
        <https://arxiv.org/abs/2406.16232>`_, 2024, Eq. 3 and Proposition 1
    """
    floors = jnp.diag(preference_array(preference, len(gram), gram.dtype))
    matrix = regularize(gram, norm_eps, reg_eps)
    return jnp.sum(jax.vmap(dual_cone_point, in_axes=(None, 0))(matrix, floors), axis=0)


def upgrad(
    *,
    num_losses: int = 2,
    preference: Preference = None,
    norm_eps: float | jax.Array = 0.0,
    reg_eps: float | jax.Array = 0.0,
    axis_name: str | None = None,
) -> Balancer:
    r"""Balances by unconflicting projection of gradients (UPGrad).

    No loss rises; the update is that of the mean loss where nothing conflicts, and it
    is linear in the scale of each gradient: a small gradient has a small influence.

    Args:
        num_losses: K.
        preference: Relative importance of the losses, ``[k]``, not negative.
        norm_eps: See :func:`upgrad_weights`; at 0 the method does not depend on the
            scale of the losses.
        reg_eps: See :func:`upgrad_weights`.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`upgrad_weights` for the equation. Weights are at least
        the preference and sum to at least one: use the learning rate of the mean loss.
        A zero gradient keeps its preference.

    Raises:
        ValueError: If a preference or an epsilon is negative.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.upgrad()
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(3)))
        >>> print("{:.4f} {:.4f} {:.4f}".format(*update))
        0.2924 1.9006 1.9006

    Notes:
        The authors' library, TorchJD, has ``norm_eps=1e-4`` and ``reg_eps=1e-4``, both
        off by default here. The first turns the method off for small gradients. With
        the second a loss may rise: at a cosine of -0.9, and one gradient 100 times as
        long as the other, the update has a cosine of -0.71 with the shorter one.
    """
    check_preference(preference, num_losses)
    check_range("norm_eps", norm_eps, 0.0)
    check_range("reg_eps", reg_eps, 0.0)
    weights_fn = gram_only(
        upgrad_weights, preference=preference, norm_eps=norm_eps, reg_eps=reg_eps
    )
    return from_gram(weights_fn, num_losses, axis_name=axis_name)
