r"""The decrease of a two-loss sum as a function of its balancing parameter.

Throughout, ``gram`` is ``[2, 2]`` with the task first, :math:`\lambda` is the weight of
the distillation loss, :math:`u_\lambda = (1 - \lambda) g_{task} + \lambda g_{dist}`.
"""

import jax
import jax.numpy as jnp

from kdopt._lambda_weights import (
    decrease,
    harmless_ends,
    rescale,
    roots,
    vertex_parts,
)
from kdopt._typing import Gram, Scalar


def loss_decrease(gram: Gram, lambda_: float | jax.Array) -> jax.Array:
    r"""Predicts how fast the weighted loss falls, per unit of learning rate.

    .. math:: D(\lambda) = \lVert u_\lambda \rVert^2
        = \lambda^2 \lVert g_{dist} \rVert^2 + (1 - \lambda)^2 \lVert g_{task} \rVert^2
          + 2 \lambda (1 - \lambda) \langle g_{dist}, g_{task} \rangle

    One step of gradient descent with learning rate :math:`\eta` lowers
    :math:`\lambda L_{dist} + (1 - \lambda) L_{task}` by :math:`\eta D(\lambda)` to
    first order. :math:`D` is convex: its maximum on [0, 1] is at an end.

    Args:
        gram: Gram matrix of the gradients, task first, ``[2, 2]``.
        lambda_: Weights of the distillation loss, any shape.

    Returns:
        :math:`D`, in the shape of ``lambda_``.

    Raises:
        ValueError: If ``gram`` is not ``[2, 2]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[38.0, -22.0], [-22.0, 18.0]])
        >>> print(kdopt.loss_decrease(gram, jnp.array([0.0, 0.5, 1.0])))
        [38.  3. 18.]

    References:
        Kim et al., `Importance Analysis for Dynamic Control of Balancing Parameter in a
        Simple Knowledge Distillation Setting <https://arxiv.org/abs/2505.06270>`_,
        2025, Eq. 10-11
    """
    x = jnp.asarray(lambda_, gram.dtype)
    return decrease(gram, 1 - x, x)


def lambda_vertex(
    gram: Gram, *, ridge: float | jax.Array = 0.0, center: float | jax.Array = 0.5
) -> Scalar:
    r"""Returns the vertex of the parabola, where the predicted decrease is least.

    .. math:: \lambda^* = \frac{b - c + \varepsilon \lambda_0}{s + \varepsilon}, \qquad
        \varepsilon = \varepsilon_r (a + b)

    with :math:`a = \lVert g_{dist} \rVert^2`, :math:`b = \lVert g_{task} \rVert^2`,
    :math:`c` their inner product and :math:`s = a + b - 2c`. There both losses fall at
    the same rate. It lies outside [0, 1] if :math:`c > \min(a, b)`.

    Args:
        gram: Gram matrix of the gradients, task first, ``[2, 2]``.
        ridge: :math:`\varepsilon_r \ge 0`; pulls the vertex towards the centre, most
            where the parabola is flat. 1e-3 tames the noise of small batches.
        center: :math:`\lambda_0`.

    Returns:
        :math:`\lambda^*`, not clipped; the centre where the gradients are equal.

    Raises:
        ValueError: If ``gram`` is not ``[2, 2]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[38.0, -22.0], [-22.0, 18.0]])
        >>> print(f"{kdopt.lambda_vertex(gram):.2f}")
        0.60
    """
    center = jnp.asarray(center, gram.dtype)
    parts, flat = vertex_parts(gram, ridge, jnp.stack([1 - center, center]))
    return jnp.where(flat, center, parts[1] / jnp.where(flat, 1, jnp.sum(parts)))


def harm_free_interval(gram: Gram) -> tuple[Scalar, Scalar]:
    r"""Returns the balancing parameters for which neither loss rises, to first order.

    .. math:: [\lambda_{lo}, \lambda_{hi}] =
        \Big[\frac{-c}{a - c}, \frac{b}{b - c}\Big] \text{ if } c < 0,
        \text{ else } [0, 1]

    At the upper end the update is orthogonal to the task gradient, at the lower end to
    the distillation gradient.

    Args:
        gram: Gram matrix of the gradients, task first, ``[2, 2]``.

    Returns:
        The two ends, each a scalar in [0, 1].

    Raises:
        ValueError: If ``gram`` is not ``[2, 2]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[38.0, -22.0], [-22.0, 18.0]])
        >>> print("{:.4f} {:.4f}".format(*kdopt.harm_free_interval(gram)))
        0.5500 0.6333
    """
    low, high = harmless_ends(gram)
    return low[1], high[1]


def lambda_roots(gram: Gram, target: float | jax.Array) -> tuple[Scalar, Scalar]:
    r"""Solves for the balancing parameters with a given predicted decrease.

    .. math:: \lambda_\pm = \lambda^* \pm \sqrt{(R - D^*) / s}, \qquad
        D^* = \frac{ab - c^2}{s}

    Args:
        gram: Gram matrix of the gradients, task first, ``[2, 2]``.
        target: :math:`R`: wanted decrease of the loss divided by the learning rate.

    Returns:
        The lower and the upper root, not clipped; NaN where the target lies below the
        vertex or the gradients are equal.

    Raises:
        ValueError: If ``gram`` is not ``[2, 2]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[38.0, -22.0], [-22.0, 18.0]])
        >>> print("{:.2f} {:.2f}".format(*kdopt.lambda_roots(gram, 6.0)))
        0.40 0.80
    """
    scaled, scale = rescale(gram)
    rate = jnp.asarray(target, gram.dtype) / scale
    (_, low), (_, high) = roots(scaled, jnp.stack([rate, rate]))
    equal = jnp.isinf(low) | jnp.isinf(high)
    return jnp.where(equal, jnp.nan, low), jnp.where(equal, jnp.nan, high)
