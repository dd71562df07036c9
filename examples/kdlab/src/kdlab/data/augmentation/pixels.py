"""Operations on the pixels of one image, as Pillow defines them.

Images are ``[h, w, c]`` in float32 with whole numbers from 0 to 255, of one or three
channels; so are the results. All can be traced, with traced arguments.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Picture = Float[Array, "h w c"]
Number = jax.typing.ArrayLike

FILL = 124.0, 116.0, 104.0
"""Colour of pixels from outside: ImageNet's mean, as timm rounds it."""

_LUMA = 0.299, 0.587, 0.114


def grey(image: Picture) -> Picture:
    """Returns the luma in every channel."""
    if image.shape[-1] == 1:
        return image
    weights = jnp.array(_LUMA, jnp.float32)
    luma = jnp.sum(image * weights[None, None], -1, keepdims=True)
    return jnp.broadcast_to(jnp.floor(luma + 0.5), image.shape)


def blend(other: Picture, image: Picture, factor: Number) -> Picture:
    """Moves from one image towards another, or beyond it where the factor exceeds 1."""
    mixed = other + factor * (image - other)
    return jnp.floor(jnp.clip(mixed, 0, 255) + 1e-4)  # rounding of single precision


def brightness(image: Picture, factor: Number) -> Picture:
    """Blends with black."""
    return blend(jnp.zeros_like(image), image, factor)


def contrast(image: Picture, factor: Number) -> Picture:
    """Blends with the mean luma."""
    mean = jnp.floor(jnp.mean(grey(image)) + 0.5)
    return blend(jnp.full_like(image, mean), image, factor)


def saturation(image: Picture, factor: Number) -> Picture:
    """Blends with the luma of each pixel."""
    return blend(grey(image), image, factor)


def sharpness(image: Picture, factor: Number) -> Picture:
    """Blends with a smoothed image; pixels at the border stay."""
    kernel = jnp.ones((3, 3)).at[1, 1].set(5) / 13
    smooth = jnp.floor(_filter(image, kernel) + 0.5)
    rows, columns = (jnp.arange(n) for n in image.shape[:2])
    inner = [(x > 0) & (x < len(x) - 1) for x in (rows, columns)]
    inside = inner[0][:, None, None] & inner[1][None, :, None]
    return blend(jnp.where(inside, smooth, image), image, factor)


def invert(image: Picture) -> Picture:
    """Subtracts from 255."""
    return 255 - image


def solarize(image: Picture, threshold: Number) -> Picture:
    """Inverts the pixels that are at least as bright as the threshold."""
    return jnp.where(image >= threshold, 255 - image, image)


def solarize_add(image: Picture, amount: Number) -> Picture:
    """Brightens the darker half of the values."""
    return jnp.where(image < 128, jnp.minimum(image + amount, 255), image)


def posterize(image: Picture, bits: Number) -> Picture:
    """Keeps the highest bits of each value."""
    step = jnp.exp2(8 - jnp.asarray(bits, jnp.float32))
    return jnp.floor(image / step) * step


def autocontrast(image: Picture) -> Picture:
    """Stretches each channel to the whole range."""
    low, high = (f(image, (0, 1), keepdims=True) for f in (jnp.min, jnp.max))
    scale = 255 / jnp.maximum(high - low, 1)
    stretched = jnp.floor((image - low) * scale + 1e-3)
    return jnp.where(high > low, stretched, image)


def equalize(image: Picture) -> Picture:
    """Makes the histogram of each channel flat."""

    def channel(values: Float[Array, "h w"]) -> Float[Array, "h w"]:
        places = values.astype(jnp.int32)
        counts = jnp.zeros(256, jnp.int32).at[places].add(1)
        last = counts[jnp.max(places)]
        step = (values.size - last) // 255
        before = jnp.cumsum(counts) - counts
        table = jnp.minimum((step // 2 + before) // jnp.maximum(step, 1), 255)
        return jnp.where(step > 0, table[places].astype(values.dtype), values)

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)


def blur(image: Picture, sigma: Number) -> Picture:
    """Convolves with a Gaussian of 13 x 13 pixels.

    Pillow's is made of three boxes and differs by half a grey level on average.
    """
    taps = jnp.exp(-jnp.square(jnp.arange(-6.0, 7)) / (2 * jnp.square(sigma)))
    taps = taps / jnp.sum(taps)
    smooth = _filter(_filter(image, taps[:, None]), taps[None])
    return jnp.floor(smooth + 0.5)


def warp(image: Picture, matrix: Float[Array, "2 3"]) -> Picture:
    """Reads each pixel where an affine map sends it, by cubic interpolation.

    Args:
        image: The image.
        matrix: Maps ``(x, y, 1)`` of an output pixel to those of the input, in pixels
            from the top left corner; pixel centres are halves.
    """
    height, width, channels = image.shape
    y, x = jnp.mgrid[:height, :width].astype(jnp.float32) + 0.5
    across, down = (row[0] * x + row[1] * y + row[2] for row in matrix)
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    columns, right = _cubic_taps(across)
    rows, below = _cubic_taps(down)
    total = jnp.zeros_like(image)
    for i in range(4):
        row = jnp.clip(rows + i, 0, height - 1)
        line = jnp.zeros_like(image)
        for j in range(4):
            column = jnp.clip(columns + j, 0, width - 1)
            line += right[j][..., None] * image[row, column]
        total += below[i][..., None] * line
    fill = jnp.array(FILL if channels == 3 else FILL[1:2], jnp.float32)
    rounded = jnp.clip(jnp.floor(total + 0.5), 0, 255)
    return jnp.where(inside[..., None], rounded, fill[None, None])


def _cubic_taps(position: Float[Array, "h w"]) -> tuple[Array, list[Array]]:
    """Returns the first of four neighbours, and the weights of the cubic of a = -1."""
    position = position - 0.5
    first = jnp.floor(position)
    d = position - first
    weights = [
        -d + 2 * d**2 - d**3,
        1 - 2 * d**2 + d**3,
        d + d**2 - d**3,
        -(d**2) + d**3,
    ]
    return first.astype(jnp.int32) - 1, weights


def _filter(image: Picture, kernel: Float[Array, "kh kw"]) -> Picture:
    """Correlates each channel with a kernel; the border is repeated outwards."""
    margins = [((n - 1) // 2, (n - 1) // 2) for n in kernel.shape]
    padded = jnp.pad(image, (*margins, (0, 0)), mode="edge")
    rows, columns = image.shape[:2]
    total = jnp.zeros_like(image)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            total += kernel[i, j] * padded[i : i + rows, j : j + columns]
    return total
