"""Image files to arrays of eight bits a channel."""

import io
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

# Formats whose pixels of mode I run from 0 to 65535, whatever the mode may hold.
_SIXTEEN_BITS = ("PNG", "PPM")


def decode(
    data: bytes, mode: str, image_size: int | None = None
) -> UInt8[np.ndarray, "h w c"]:
    """Decode an image, and resize it if a size is given.

    Args:
        data: The encoded image.
        mode: ``RGB`` or ``L``.
        image_size: Resize the shorter side to this, bilinear with antialiasing, and cut
            the middle out of the longer one.

    Returns:
        ``[h, w, c]``, with one channel if `mode` is ``L``.

    Raises:
        ValueError: If it is no image, or one of 32-bit pixels.
    """
    image = open_image(data, mode)
    if image_size is not None:
        image = resize_and_crop(image, image_size, image_size)
    return to_array(image)


def open_image(data: bytes, mode: str) -> Image.Image:
    """Decode to a Pillow image in the given mode, as a viewer would show it.

    The first frame of an animation; turned as its EXIF orientation says; 16 bits a
    channel are scaled to 8; what is transparent shows white. Colour profiles are
    ignored.

    Args:
        data: The encoded image.
        mode: ``RGB`` or ``L``.

    Raises:
        ValueError: If it is no image, or one of 32-bit pixels.
    """
    try:
        file = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise ValueError("it is no image of a known format") from error
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
    """Turns an image in place; one whose EXIF data are damaged stays as it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged EXIF data
            ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # they are not worth an image
        pass


def _eight_bits(image: Image.Image) -> Image.Image:
    sixteen = image.mode == "I" and image.format in _SIXTEEN_BITS
    if image.mode.startswith("I;16") or sixteen:
        pixels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"its pixels have 32 bits (mode {image.mode}) of an unknown range, where 8 "
            "or 16 are expected"
        )
    return image


def resize_and_crop(image: Image.Image, resize: int, size: int) -> Image.Image:
    """Resize the shorter side to `resize`, then cut out the middle `size` x `size`.

    Bilinear with antialiasing; both steps in one, so nothing is rounded in between.
    """
    width, height = image.size
    side = min(width, height) * size / resize
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize(
        (size, size),
        Image.Resampling.BILINEAR,
        box=(left, top, left + side, top + side),
    )


def to_array(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    """Pixels with a channel axis, also of a grey image."""
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
