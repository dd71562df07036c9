"""Decodes image files to arrays with eight bits per channel."""

import io
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

# Formats whose pixels range from 0 to 65535 in mode I, which could hold more.
_SIXTEEN_BITS = ("PNG", "PPM")


def decode(
    data: bytes, mode: str, image_size: int | None = None
) -> UInt8[np.ndarray, "h w c"]:
    """Decodes an image, and resizes it if a size is given.

    Args:
        data: The encoded image.
        mode: ``RGB`` or ``L``.
        image_size: Size to which the shorter side is resized (bilinear, antialiased)
            and the longer one is cropped about its centre.

    Returns:
        ``[h, w, c]``, with one channel if `mode` is ``L``.

    Raises:
        ValueError: If it is not an image, or has 32-bit pixels.
    """
    image = open_image(data, mode)
    if image_size is not None:
        image = resize_and_crop(image, image_size, image_size)
    return to_array(image)


def open_image(data: bytes, mode: str) -> Image.Image:
    """Decodes to a Pillow image of the given mode, as an image viewer would show it.

    Takes the first frame of an animation, applies the EXIF orientation, scales 16 bits
    per channel to 8, and puts transparent pixels on white. Colour profiles are ignored.

    Args:
        data: The encoded image.
        mode: ``RGB`` or ``L``.

    Raises:
        ValueError: If it is not an image, or has 32-bit pixels.
    """
    try:
        file = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise ValueError("it is not an image of a known format") from error
    with file:
        file.load()
        _turn_upright(file)
        image = _eight_bits(file)
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image.convert("RGBA"))
            image = white
        return image.convert(mode)


def _turn_upright(image: Image.Image) -> None:
    """Applies the EXIF orientation in place, ignoring damaged EXIF data."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on damaged EXIF data
            ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # not a reason to reject the image
        pass


def _eight_bits(image: Image.Image) -> Image.Image:
    sixteen = image.mode == "I" and image.format in _SIXTEEN_BITS
    if image.mode.startswith("I;16") or sixteen:
        pixels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"its pixels have 32 bits (mode {image.mode}) and an unknown range; "
            "expected 8 or 16 bits"
        )
    return image


FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
"""Ways to resize, by name."""


def resize_and_crop(
    image: Image.Image,
    resize: int,
    size: int,
    filter_: Image.Resampling = FILTERS["bilinear"],
) -> Image.Image:
    """Resizes the shorter side to `resize`, then crops the central `size` x `size`.

    Both happen in one antialiased step, without rounding in between.
    """
    width, height = image.size
    side = min(width, height) * size / resize
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize(
        (size, size),
        filter_,
        box=(left, top, left + side, top + side),
    )


def to_array(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    """Returns the pixels with a channel axis, even for greyscale images."""
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
