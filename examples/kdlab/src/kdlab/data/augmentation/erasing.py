"""Random erasing: a box of each normalised image is replaced by noise."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

TRIES = 10


def erase(
    key: PRNGKeyArray,
    images: Float[Array, "b h w c"],
    *,
    probability: float,
    area: tuple[float, float] = (0.02, 1 / 3),
    ratio: float = 0.3,
) -> Float[Array, "b h w c"]:
    """Replaces a box of some images by standard normal noise in each pixel.

    Of ten boxes that are drawn the first that fits is taken.

    Args:
        key: Random key.
        images: Normalised, ``[b, h, w, c]``.
        probability: Probability that an image has a box.
        area: Smallest and largest share of the image.
        ratio: Smallest ratio of height to width; the largest is its inverse.

    Returns:
        Images of the same shape.

    References:
        Zhong et al., `Random Erasing Data Augmentation
        <https://arxiv.org/abs/1708.04896>`_, 2017
    """
    batch, height, width, _ = images.shape
    used, sizes, shapes, places, noise = jax.random.split(key, 5)
    draws = batch, TRIES
    low, high = (share * height * width for share in area)
    space = jax.random.uniform(sizes, draws, minval=low, maxval=high)
    bound = -math.log(ratio)
    shape = jnp.exp(jax.random.uniform(shapes, draws, minval=-bound, maxval=bound))
    tall, wide = jnp.rint(jnp.sqrt(space * shape)), jnp.rint(jnp.sqrt(space / shape))
    fits = (tall < height) & (wide < width)
    first = jnp.argmax(fits, axis=1)[:, None]
    tall, wide = (jnp.take_along_axis(x, first, 1) for x in (tall, wide))
    corner = jax.random.uniform(places, (2, batch, 1))
    top = jnp.floor(corner[0] * (height - tall + 1))
    left = jnp.floor(corner[1] * (width - wide + 1))
    rows, columns = jnp.arange(height)[None], jnp.arange(width)[None]
    down = (rows >= top) & (rows < top + tall)
    across = (columns >= left) & (columns < left + wide)
    chosen = jax.random.bernoulli(used, probability, (batch,)) & jnp.any(fits, axis=1)
    box = chosen[:, None, None] & down[:, :, None] & across[:, None]
    return jnp.where(box[..., None], jax.random.normal(noise, images.shape), images)
