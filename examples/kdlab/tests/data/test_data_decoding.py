"""Images of every kind come out in eight bits, upright, on white."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

import _archives
from kdlab.data.decoding import decode

RAMP = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=-1)


def encode(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def png(pixels, colour_type):
    """Makes a PNG of 16 bits per channel, which Pillow writes only for grey."""

    def chunk(name, data):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def tiff(pixels, order):
    """Makes an uncompressed TIFF of 16 bits per channel; `order` is < or >."""
    height, width, channels = pixels.shape
    data = pixels.astype(f"{order}u2").tobytes()
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, channels, 16),
        (259, 3, 1, 1),
        (262, 3, 1, 2 if channels > 1 else 1),
        (273, 4, 1, 0),
        (277, 3, 1, channels),
        (278, 3, 1, height),
        (279, 4, 1, len(data)),
    ]
    behind = 8 + 2 + 12 * len(tags) + 4
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    entries = b""
    for tag, kind, count, value in tags:
        if tag == 258 and channels > 2:
            kind, value, form = 3, behind, "I"
        elif tag == 273:
            value, form = behind + len(bits), "I"
        else:
            form = "I" if kind == 4 else "HH"
        values = (value, 0) if form == "HH" else (value,)
        entries += struct.pack(f"{order}HHI{form}", tag, kind, count, *values)
    start = b"II*\0" if order == "<" else b"MM\0*"
    head = struct.pack(f"{order}IH", 8, len(tags))
    return start + head + entries + struct.pack(f"{order}I", 0) + bits + data


GREY = {
    "PNG": encode(Image.fromarray(RAMP), "PNG"),
    "TIFF": encode(Image.fromarray(RAMP), "TIFF"),
    "TIFF, big-endian": tiff(RAMP[..., None], ">"),
    "PGM": encode(Image.fromarray(RAMP), "PPM"),
}
COLOUR = {
    "PNG": png(COLOURS, 2),
    "PNG with alpha": png(np.dstack([COLOURS, np.full_like(RAMP, 65535)]), 6),
    "TIFF": tiff(COLOURS, "<"),
    "TIFF, big-endian": tiff(COLOURS, ">"),
}


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", GREY)
def test_grey_of_16_bits_is_scaled(kind, mode):
    pixels = decode(GREY[kind], mode)
    assert pixels.shape == (8, 8, 3 if mode == "RGB" else 1)
    expected = np.rint(RAMP / 257.0)
    np.testing.assert_allclose(pixels[..., 0], expected, atol=0.5)
    assert (pixels.min(), pixels.max()) == (0, 255)


@pytest.mark.parametrize("kind", COLOUR)
def test_colours_of_16_bits_are_scaled(kind):
    pixels = decode(COLOUR[kind], "RGB").astype(float)
    np.testing.assert_allclose(pixels, COLOURS / 257.0, atol=1)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_32_bits_are_refused_by_their_mode(mode):
    image = Image.fromarray(RAMP.astype({"I": np.int32, "F": np.float32}[mode]))
    with pytest.raises(ValueError, match=rf"32 bits \(mode {mode}\)"):
        decode(encode(image, "TIFF"), "RGB")


@pytest.mark.parametrize(("alpha", "weight"), [(0, 0.0), (255, 1.0), (51, 0.2)])
@pytest.mark.parametrize("kind", ["RGBA", "LA"])
def test_transparent_pixels_show_white(kind, alpha, weight):
    image = Image.new("RGBA", (2, 2), (100, 100, 100, alpha)).convert(kind)
    expected = 255 + weight * (100 - 255)
    for mode in ("RGB", "L"):
        pixels = decode(encode(image, "PNG"), mode)
        np.testing.assert_allclose(pixels, expected, atol=1)


def test_a_transparent_colour_of_a_palette_shows_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    plain = decode(encode(image, "PNG"), "RGB")
    assert plain.tolist() == [[[10, 20, 30], [40, 50, 60]]]
    half = decode(encode(image, "PNG", transparency=0), "RGB")
    assert half.tolist() == [[[255, 255, 255], [40, 50, 60]]]


@pytest.mark.parametrize("kind", ["1", "L", "P", "CMYK", "YCbCr", "RGB"])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG"])
def test_every_kind_of_eight_bits_is_read(kind, file_format):
    image = Image.new("RGB", (8, 8), "black")
    image.paste((255, 255, 255), (4, 0, 8, 8))
    image = image.convert(kind)
    try:
        data = encode(
            image, file_format, **{"quality": 100} if "J" in file_format else {}
        )
    except OSError:
        pytest.skip(f"there is no {file_format} of {kind}")
    for mode, channels in (("RGB", 3), ("L", 1)):
        pixels = decode(data, mode)
        assert pixels.shape == (8, 8, channels)
        assert pixels[:, :3].max() < 16 and pixels[:, 5:].min() > 239


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_is_taken(file_format):
    first, *others = (Image.new("RGB", (4, 4), c) for c in ("red", "blue", "lime"))
    data = encode(first, file_format, save_all=True, append_images=others)
    pixels = decode(data, "RGB").astype(int)
    assert (pixels[..., 0] > 240).all() and (pixels[..., 1:] < 15).all()


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_as_a_viewer_shows_them(file_format, orientation):
    pixels = _archives.random_images(1, 8)[0][:, :5]
    # Numbers of the standard: how the scene was transformed.
    undo = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
        8: lambda x: np.rot90(x),
    }[orientation]
    tags = Image.Exif()
    tags[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(Image.fromarray(pixels), file_format, exif=tags, **options)
    np.testing.assert_array_equal(decode(data, "RGB"), undo(pixels))


@pytest.mark.parametrize(
    "tags",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0",
    ],
)
def test_damaged_tags_do_not_cost_the_image(tags):
    pixels = _archives.random_images(1, 8)[0][:, :5]
    data = encode(Image.fromarray(pixels), "JPEG", exif=tags)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on opening the file
        assert decode(data, "RGB").shape == (8, 5, 3)


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_said_without_an_address(data):
    with pytest.raises(ValueError, match=r"not an image of a known format$"):
        decode(data, "RGB")
