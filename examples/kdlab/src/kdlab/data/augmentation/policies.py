"""Policies of random operations on the pixels of each image, inside a jitted step.

Every policy maps a key and a batch of ``uint8`` images, of one or three channels, to
``uint8`` images. All operations are computed for every image and one is selected,
which on an accelerator takes little beside a network.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from kdlab.data.augmentation import pixels
from kdlab.data.augmentation.crops import Images
from kdlab.data.augmentation.pixels import Picture

OPERATIONS = (
    *("autocontrast", "equalize", "invert", "rotate", "posterize", "solarize"),
    *("solarize_add", "color", "contrast", "brightness", "sharpness"),
    *("shear_x", "shear_y", "translate_x", "translate_y"),
)
"""Operations of RandAugment, in timm's order."""

_GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def rand_augment(
    key: PRNGKeyArray,
    images: Images,
    *,
    count: int = 2,
    magnitude: float = 9.0,
    deviation: float = 0.5,
    probability: float = 0.5,
) -> Images:
    """Applies random operations in turn: timm's ``rand-m9-mstd0.5-inc1`` by default.

    Args:
        key: Random key.
        images: ``[b, h, w, c]``.
        count: Number of draws among :data:`OPERATIONS`, with replacement.
        magnitude: Mean magnitude, from 0 to 10.
        deviation: Standard deviation of the magnitudes.
        probability: Probability that a drawn operation is applied.

    Returns:
        Images of the same shape.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> images = jnp.full((2, 8, 8, 3), 200, jnp.uint8)
        >>> jax.jit(rand_augment)(jax.random.key(0), images).shape
        (2, 8, 8, 3)

    References:
        Cubuk et al., `RandAugment <https://arxiv.org/abs/1909.13719>`_, 2019
    """

    def once(key: PRNGKeyArray, image: Picture) -> Picture:
        which, strength, sign, used = jax.random.split(key, 4)
        level = magnitude + deviation * jax.random.normal(strength)
        negative = jax.random.bernoulli(sign)
        done = apply(
            image,
            jax.random.randint(which, (), 0, len(OPERATIONS)),
            jnp.clip(level, 0, 10),
            jnp.where(negative, -1.0, 1.0),
        )
        return jnp.where(jax.random.bernoulli(used, probability), done, image)

    def one(key: PRNGKeyArray, image: Picture) -> Picture:
        for draw in jax.random.split(key, count):
            image = once(draw, image)
        return image

    return _each(one, key, images)


def apply(image: Picture, index: Array, level: Array, sign: Array) -> Picture:
    """Applies one operation of RandAugment.

    Args:
        image: ``[h, w, c]``, whole numbers in float32.
        index: Place of the operation in :data:`OPERATIONS`.
        level: Magnitude from 0 to 10.
        sign: 1 or -1, for operations with a direction.
    """
    factor = jnp.maximum(0.1, 1 + sign * 0.09 * level)
    whole = {
        "posterize": 4 - jnp.floor(0.4 * level),
        "solarize": 256 - jnp.floor(25.6 * level),
        "solarize_add": jnp.minimum(128, jnp.floor(11 * level)),
    }
    branches: dict[str, Callable[[Picture], Picture]] = {
        "autocontrast": pixels.autocontrast,
        "equalize": pixels.equalize,
        "invert": pixels.invert,
        "posterize": lambda x: pixels.posterize(x, whole["posterize"]),
        "solarize": lambda x: pixels.solarize(x, whole["solarize"]),
        "solarize_add": lambda x: pixels.solarize_add(x, whole["solarize_add"]),
        "color": lambda x: pixels.saturation(x, factor),
        "contrast": lambda x: pixels.contrast(x, factor),
        "brightness": lambda x: pixels.brightness(x, factor),
        "sharpness": lambda x: pixels.sharpness(x, factor),
        "warp": lambda x: pixels.warp(x, matrix),
    }
    names = list(branches)
    places = [names.index("warp" if n in _GEOMETRIC else n) for n in OPERATIONS]
    matrix = geometric_matrix(index, sign * level, *image.shape[:2])
    return jax.lax.switch(jnp.array(places)[index], list(branches.values()), image)


def geometric_matrix(
    index: Array, level: Array, height: int, width: int
) -> Float[Array, "2 3"]:
    """Returns the map that `pixels.warp` takes, for a geometric operation.

    Args:
        index: Place of the operation in :data:`OPERATIONS`.
        level: Magnitude with its sign.
        height: Height of the image.
        width: Width of the image.
    """
    angle = jnp.deg2rad(3 * level)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    shear, zero, one = 0.03 * level, 0.0 * level, 1 + 0.0 * level
    x, y = width / 2, height / 2
    shift = x - cos * x + sin * y, y - sin * x - cos * y
    maps = {
        "rotate": (cos, -sin, shift[0], sin, cos, shift[1]),
        "shear_x": (one, shear, zero, zero, one, zero),
        "shear_y": (one, zero, zero, shear, one, zero),
        "translate_x": (one, zero, 0.045 * level * width, zero, one, zero),
        "translate_y": (one, zero, zero, zero, one, 0.045 * level * height),
    }
    still = (one, zero, zero, zero, one, zero)
    table = jnp.stack([jnp.stack(maps.get(name, still)) for name in OPERATIONS])
    return table[index].reshape(2, 3)


def three_augment(key: PRNGKeyArray, images: Images, *, jitter: float = 0.3) -> Images:
    """Greys, solarises or blurs each image, and jitters its colours: DeiT III's recipe.

    Args:
        key: Random key.
        images: ``[b, h, w, c]``.
        jitter: Brightness, contrast and saturation are multiplied, in random order, by
            factors uniform in ``[1 - jitter, 1 + jitter]``.

    Returns:
        Images of the same shape.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> images = jnp.full((2, 8, 8, 3), 100, jnp.uint8)
        >>> three_augment(jax.random.key(0), images, jitter=0.0).mean().item()
        100.0

    References:
        Touvron, Cord and Jegou, `DeiT III <https://arxiv.org/abs/2204.07118>`_, 2022
    """

    def one(key: PRNGKeyArray, image: Picture) -> Picture:
        which, width, order, factors = jax.random.split(key, 4)
        sigma = jax.random.uniform(width, minval=0.1, maxval=2.0)
        image = jax.lax.switch(
            jax.random.randint(which, (), 0, 3),
            [
                pixels.grey,
                lambda x: pixels.solarize(x, 128),
                lambda x: pixels.blur(x, sigma),
            ],
            image,
        )
        by = jax.random.uniform(factors, (3,), minval=1 - jitter, maxval=1 + jitter)
        for place in jax.random.permutation(order, 3):
            image = jax.lax.switch(
                place,
                [
                    lambda x: pixels.brightness(x, by[0]),
                    lambda x: pixels.contrast(x, by[1]),
                    lambda x: pixels.saturation(x, by[2]),
                ],
                image,
            )
        return image

    return _each(one, key, images)


def _each(
    policy: Callable[[PRNGKeyArray, Picture], Picture],
    key: PRNGKeyArray,
    images: Images,
) -> Images:
    """Applies a policy to every image of a batch with a key of its own."""
    keys = jax.random.split(key, len(images))
    return jax.vmap(policy)(keys, images.astype(jnp.float32)).astype(jnp.uint8)
