"""Norms and directions with finite gradients where the vector vanishes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdopt.losses._reduce import divide_or_zero


def norm(
    x: Float[Array, "..."], *, axis: int | tuple[int, ...] = -1
) -> Float[Array, "..."]:
    """Computes the Euclidean norm along axes, kept with size 1; gradient 0 at 0.

    The vector is first scaled by its largest entry, so that its square can neither
    overflow nor vanish.
    """
    greatest = jnp.max(jnp.abs(x), axis=axis, keepdims=True)
    scale = jax.lax.stop_gradient(jnp.where(greatest > 0, greatest, 1))
    square = jnp.sum(jnp.square(x / scale), axis=axis, keepdims=True)
    positive = square > 0
    return scale * jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


def unit(
    x: Float[Array, "..."], *, axis: int | tuple[int, ...] = -1
) -> Float[Array, "..."]:
    """Scales to length 1 along axes; a zero vector stays zero without gradient."""
    # Scaling first keeps the gradient free of powers of a tiny or huge norm.
    greatest = jnp.max(jnp.abs(x), axis=axis, keepdims=True)
    scaled = x / jax.lax.stop_gradient(jnp.where(greatest > 0, greatest, 1))
    return divide_or_zero(scaled, norm(scaled, axis=axis))


def centred(
    x: Float[Array, "..."], weights: Float[Array, "..."], *, axis: int = -1
) -> Float[Array, "..."]:
    """Subtracts the weighted mean along an axis.

    Args:
        x: Any array.
        weights: Non-negative, in the shape of ``x`` or with axes of size 1.
        axis: The axis to average over.

    Returns:
        The deviations. Exactly 0, without gradient, where all entries are equal up to
        rounding: a ratio of such deviations would be noise.
    """
    total = jnp.sum(weights * jnp.ones_like(x), axis=axis, keepdims=True)
    mean = divide_or_zero(jnp.sum(weights * x, axis=axis, keepdims=True), total)
    gaps = jnp.where(weights > 0, x - mean, 0)
    size = jnp.max(jnp.abs(x), axis=axis, keepdims=True)
    noise = 8 * jnp.finfo(x.dtype).eps * size
    varies = jnp.max(jnp.abs(gaps), axis=axis, keepdims=True) > noise
    return jnp.where(varies, gaps, 0)
