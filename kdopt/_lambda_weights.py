"""Weights of two losses on the parabola of their decrease, each to full precision.

Throughout, ``gram`` is ``[2, 2]`` with the task first, and weights are
``(1 - lambda, lambda)``. The first is not computed from the second: near 1 a lambda has
no digit left for the weight of a far longer task gradient.
"""

import jax
import jax.numpy as jnp

from kdopt._typing import Gram, Scalar, Weights


def entries(gram: Gram) -> tuple[Scalar, Scalar, Scalar]:
    """Returns the distillation, task and mixed entries."""
    if gram.shape != (2, 2):
        raise ValueError(
            f"lambda balances two losses: expected a gram of shape (2, 2), got "
            f"{gram.shape}."
        )
    return gram[1, 1], gram[0, 0], gram[0, 1]


def rescale(gram: Gram) -> tuple[Gram, Scalar]:
    """Divides by a power of two close to the product of the two norms.

    Rounding errors of the entries are then far above the smallest float, whatever the
    lengths of the gradients.
    """
    squares = jnp.diagonal(gram)
    product = jnp.prod(jnp.sqrt(jnp.where(squares > 0, squares, 1)))
    scale = jax.lax.reduce_precision(product, jnp.finfo(gram.dtype).nexp, 0)
    return gram / scale, scale


def decrease(gram: Gram, task: jax.Array, distill: jax.Array) -> jax.Array:
    """Returns the squared length of the update, for weights of any shape."""
    a, b, c = entries(gram)
    return a * distill**2 + b * task**2 + 2 * c * distill * task


def vertex_parts(
    gram: Gram, ridge: float | jax.Array, center: jax.Array
) -> tuple[Weights, jax.Array]:
    """Returns the numerators of both weights, and whether they are only rounding."""
    a, b, c = entries(rescale(gram)[0])
    epsilon = jnp.asarray(ridge, a.dtype) * (a + b)
    parts = jnp.stack([a - c, b - c]) + epsilon * center
    flat = a + b - 2 * c + epsilon <= 4 * jnp.finfo(a.dtype).eps * (a + b)
    return parts, flat


def vertex_weights(gram: Gram, ridge: float | jax.Array, center: Weights) -> Weights:
    """Returns the weights at the vertex, in [0, 1]; ``center`` if undefined."""
    parts, flat = vertex_parts(gram, ridge, center)
    parts = jnp.where(flat, center, jnp.maximum(parts, 0))
    return parts / jnp.sum(parts)


def harmless_ends(gram: Gram) -> tuple[Weights, Weights]:
    """Returns the weights at the two ends of the harm-free interval."""
    a, b, c = entries(rescale(gram)[0])
    conflict = c < 0
    low = jnp.where(conflict, jnp.stack([a, -c]), jnp.array([1, 0], a.dtype))
    high = jnp.where(conflict, jnp.stack([-c, b]), jnp.array([0, 1], a.dtype))
    return low / jnp.sum(low), high / jnp.sum(high)


def harmless_weights(gram: Gram, wanted: Weights) -> Weights:
    """Returns the weights nearest to the wanted ones for which neither loss rises."""
    low, high = harmless_ends(gram)

    def above(end: Weights) -> Scalar:
        return wanted[1] * end[0] - wanted[0] * end[1]

    return jnp.where(above(high) > 0, high, jnp.where(above(low) < 0, low, wanted))


def roots(gram: Gram, rates: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""Returns the weights with the wanted decrease, at the lower and the upper lambda.

    .. math:: \lVert u_\lambda \rVert^2 = (1 - \lambda) r_0 + \lambda r_1

    NaN where there is no such point; infinite where the parabola is a line. The
    textbook formula cancels where it is nearly a line; this one does not.
    """
    a, b, c = entries(gram)
    p = jnp.maximum(a + b - 2 * c, 0)
    slope = (rates[0] - rates[1]) / 2
    # p x^2 + 2 h x + r for lambda, and for 1 - lambda, whose roots are one minus those:
    # the discriminant is the same, and taken where its terms are smaller.
    h, r = jnp.stack([c - b + slope, c - a - slope]), jnp.stack([b, a]) - rates
    root = jnp.sqrt((h**2 - p * r)[jnp.argmin(jnp.abs(r))])
    t = -h - jnp.where(h < 0, -1, 1) * root
    one = jnp.where(p > 0, t / jnp.where(p > 0, p, 1), jnp.inf)
    other = jnp.where(t == 0, 0, r / jnp.where(t == 0, 1, t))
    low, high = jnp.minimum(one, other), jnp.maximum(one, other)
    return jnp.stack([high[1], low[0]]), jnp.stack([low[1], high[0]])


def rate_weights(gram: Gram, rates: Weights, previous: Weights) -> Weights:
    r"""Returns the weights whose predicted decrease is nearest to a wanted one.

    .. math:: \lVert u_\lambda \rVert^2 = (1 - \lambda) r_0 + \lambda r_1

    Of several, those nearest to the previous weights.
    """
    scaled, scale = rescale(gram)
    limit = jnp.sqrt(jnp.finfo(gram.dtype).max)
    rates = jnp.clip(rates / scale, -limit, limit)
    a, b, c = entries(scaled)
    slopes = (rates - rates[::-1]) / 2
    vertex = jnp.stack([a - c, b - c]) + slopes
    points = jnp.stack(
        [
            *roots(scaled, rates),
            vertex / jnp.sum(vertex),
            previous,
            jnp.array([1, 0], gram.dtype),
            jnp.array([0, 1], gram.dtype),
        ]
    )
    # A NaN (no root, no vertex) is replaced by the previous point.
    lost = jnp.any(jnp.isnan(points), -1, keepdims=True)
    points = jnp.clip(jnp.where(lost, previous[None, :], points), 0, 1)
    points = points / jnp.sum(points, -1, keepdims=True)
    task, distill = points.T
    wanted = rates[0] * task + rates[1] * distill
    sizes = decrease(jnp.abs(scaled), task, distill) + jnp.abs(wanted)
    eps = 8 * jnp.finfo(gram.dtype).eps
    misses = jnp.abs(decrease(scaled, task, distill) - wanted)
    misses = jnp.maximum(misses - eps * sizes, 0)
    as_near = misses <= jnp.min(misses) * (1 + eps)
    away = jnp.abs(task - previous[0]) + jnp.abs(distill - previous[1])
    return points[jnp.argmin(jnp.where(as_near, away, jnp.inf))]
