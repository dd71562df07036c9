"""Random image transforms that run inside a jitted step.

Every transform maps a key and a batch of ``uint8`` images to ``uint8`` images, by one
gather over the batch rather than a dynamic slice per image. The key alone determines
the result, so a resumed run sees the same images.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

Images = UInt8[Array, "b h w c"]


def normalize(
    images: Images,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Float[Array, "b h w c"]:
    r"""Scales images to [0, 1] and standardises each channel.

    .. math:: \hat x = \frac{x / 255 - \mu}{\sigma}

    Args:
        images: ``[b, h, w, c]``.
        mean: :math:`\mu` per channel, of images in [0, 1].
        std: :math:`\sigma` per channel.
        dtype: Dtype of the result; the arithmetic is in float32.

    Examples:
        >>> import jax.numpy as jnp
        >>> white = jnp.full((1, 1, 1, 1), 255, jnp.uint8)
        >>> print(normalize(white, (0.5,), (0.25,)).item())
        2.0
    """
    # One multiply-add per pixel.
    scale = 1 / (255 * jnp.asarray(std, jnp.float32))
    offset = jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
    scaled = images.astype(jnp.float32) * scale[None, None, None]
    return (scaled - offset[None, None, None]).astype(dtype)


def random_shift(
    key: PRNGKeyArray, images: Images, *, max_shift: int = 2, flip: bool = False
) -> Images:
    """Shifts each image by up to `max_shift` pixels along each axis, filling with 0.

    Args:
        key: Random key of the shifts.
        images: ``[b, h, w, c]``.
        max_shift: Shifts are uniform over the integers of ``[-max_shift, max_shift]``.
        flip: Whether to mirror each image with probability 1/2 first.

    Returns:
        Shifted images, ``[b, h, w, c]``.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> images = jnp.ones((2, 5, 5, 1), jnp.uint8)
        >>> random_shift(jax.random.key(0), images, max_shift=1).sum().item() >= 32
        True
    """
    batch, height, width, _ = images.shape
    shift_key, flip_key = jax.random.split(key)
    shifts = jax.random.randint(shift_key, (batch, 2), -max_shift, max_shift + 1)
    rows = jnp.arange(height)[None] + shifts[:, :1]
    columns = jnp.arange(width)[None] + shifts[:, 1:]
    inside_rows = (rows >= 0) & (rows < height)
    inside_columns = (columns >= 0) & (columns < width)
    if flip:
        mirrored = jax.random.bernoulli(flip_key, shape=(batch, 1))
        columns = jnp.where(mirrored, width - 1 - columns, columns)
    inside = inside_rows[:, :, None] & inside_columns[:, None, :]
    return _gather(images, rows[:, :, None], columns[:, None, :], inside)


def random_crop_flip(key: PRNGKeyArray, images: Images, *, padding: int = 4) -> Images:
    """Pads with zeros, crops and mirrors at random: the CIFAR recipe.

    Cropping a padded image to its original size equals shifting it by up to
    `padding` pixels.

    Args:
        key: Random key of the crops and flips.
        images: ``[b, h, w, c]``.
        padding: Pixels added on every side.

    Returns:
        Images of the same shape.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> images = jnp.ones((2, 8, 8, 3), jnp.uint8)
        >>> random_crop_flip(jax.random.key(0), images).shape
        (2, 8, 8, 3)

    References:
        He et al., `Deep Residual Learning for Image Recognition
        <https://arxiv.org/abs/1512.03385>`_, 2015, section 4.2
    """
    return random_shift(key, images, max_shift=padding, flip=True)


def random_rotation_flip(
    key: PRNGKeyArray, images: Images, *, degrees: float = 20.0
) -> Images:
    """Rotates about the centre and mirrors at random: the Tiny-ImageNet recipe.

    Interpolation is by nearest neighbour; pixels from outside are 0.

    Args:
        key: Random key of the angles and flips.
        images: ``[b, h, w, c]``.
        degrees: Angles are uniform in ``[-degrees, degrees]``.

    Returns:
        Images of the same shape.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> images = jnp.ones((2, 8, 8, 3), jnp.uint8)
        >>> random_rotation_flip(jax.random.key(0), images)[:, 3, 3, 0].tolist()
        [1, 1]
    """
    batch, height, width, _ = images.shape
    angle_key, flip_key = jax.random.split(key)
    angles = jax.random.uniform(angle_key, (batch, 1, 1), minval=-1.0, maxval=1.0)
    angles = angles * jnp.float32(jnp.pi * degrees / 180)
    y = (jnp.arange(height, dtype=jnp.float32) - (height - 1) / 2)[None, :, None]
    x = (jnp.arange(width, dtype=jnp.float32) - (width - 1) / 2)[None, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    rows = jnp.rint(cos * y - sin * x + (height - 1) / 2).astype(jnp.int32)
    columns = jnp.rint(sin * y + cos * x + (width - 1) / 2).astype(jnp.int32)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    mirrored = jax.random.bernoulli(flip_key, shape=(batch, 1, 1))
    columns = jnp.where(mirrored, width - 1 - columns, columns)
    return _gather(images, rows, columns, inside)


def random_resized_crop_flip(
    key: PRNGKeyArray,
    images: Images,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Images:
    r"""Crops a random area and shape, resizes it back, and mirrors at random.

    The area is a fraction of the image, uniform in `scale`; the ratio of width to
    height is log-uniform in `ratio`; a side longer than the image is cut to it.
    Interpolation is bilinear without antialiasing, since crops are never shrunk.

    Args:
        key: Random key of the crops and flips.
        images: ``[b, h, w, c]``.
        scale: Smallest and largest fraction of the area.
        ratio: Smallest and largest ratio of width to height.

    Returns:
        Images of the same shape.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> images = jnp.full((2, 8, 8, 3), 7, jnp.uint8)
        >>> set(random_resized_crop_flip(jax.random.key(0), images).ravel().tolist())
        {7}

    References:
        Szegedy et al., `Going Deeper with Convolutions
        <https://arxiv.org/abs/1409.4842>`_, 2014, section 6
    """
    batch, height, width, _ = images.shape
    draws = jax.random.uniform(key, (5, batch))
    area = scale[0] + (scale[1] - scale[0]) * draws[0]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    root = jnp.exp((low + (high - low) * draws[1]) / 2)
    side = jnp.sqrt(area * (height * width))
    crop_height = jnp.minimum(side / root, height)
    crop_width = jnp.minimum(side * root, width)
    top = draws[2] * (height - crop_height)
    left = draws[3] * (width - crop_width)
    # Mirror by reading from right to left.
    mirrored = draws[4] < 0.5
    left = jnp.where(mirrored, left + crop_width, left)
    crop_width = jnp.where(mirrored, -crop_width, crop_width)
    rows, down = _bilinear_taps(top, crop_height, height)
    columns, right = _bilinear_taps(left, crop_width, width)
    # Gathers are faster on CPU than products with interpolation matrices, especially
    # for large images.
    rows, columns = rows[:, :, None], columns[:, None, :]
    down, right = down[:, :, None, None], right[:, None, :, None]
    upper = _lerp(
        _pixels(images, rows, columns), _pixels(images, rows, columns + 1), right
    )
    rows = rows + 1
    lower = _lerp(
        _pixels(images, rows, columns), _pixels(images, rows, columns + 1), right
    )
    return jnp.rint(_lerp(upper, lower, down)).astype(jnp.uint8)


def _bilinear_taps(
    start: Float[Array, " b"], length: Float[Array, " b"], size: int
) -> tuple[Int[Array, "b size"], Float[Array, "b size"]]:
    """Returns each output pixel's first neighbour and the weight of its second one."""
    centres = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    position = start[:, None] + centres[None] * length[:, None] - 0.5
    position = jnp.clip(position, 0, size - 1)  # border pixels extend outside
    first = jnp.floor(position)
    return first.astype(jnp.int32), position - first


def _lerp(
    first: Array, second: Array, weight: Float[Array, "..."]
) -> Float[Array, "..."]:
    first, second = first.astype(jnp.float32), second.astype(jnp.float32)
    return first + weight * (second - first)


def _pixels(
    images: Images, rows: Int[Array, "b #h #w"], columns: Int[Array, "b #h #w"]
) -> Images:
    """Reads pixels at ``(rows, columns)`` of each image, or the nearest inside."""
    index = jnp.arange(len(images))[:, None, None]
    return images.at[index, rows, columns].get(mode="clip")


def _gather(
    images: Images,
    rows: Int[Array, "b #h #w"],
    columns: Int[Array, "b #h #w"],
    inside: Bool[Array, "b h w"],
) -> Images:
    """Reads pixels at ``(rows, columns)`` of each image, 0 outside of it."""
    return jnp.where(inside[..., None], _pixels(images, rows, columns), jnp.uint8(0))
