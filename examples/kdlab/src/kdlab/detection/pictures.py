"""Draws detections on images."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from kdlab.basics.reading import reading
from kdlab.data.decoding import open_image
from kdlab.data.detection.source import DetectionSource

_SIDE = 288  # of an image in the grid, in pixels
_GAP = 4
_TRUE, _FOUND = "#21c354", "#ff9f1c"


def draw_grid(
    source: DetectionSource,
    results: Sequence[dict[str, Any]],
    path: Path,
    *,
    images: int = 12,
    columns: int = 4,
) -> None:
    """Draws the first images with their objects (green) and detections (orange).

    As many detections are drawn as there are objects, the best first: how many a
    detector finds does not depend on how sure it is.

    Args:
        source: The images.
        results: Detections in the format of COCO, those of an image in falling order
            of their scores.
        path: The PNG file.
        images: Number of images.
        columns: Number of images in a row.
    """
    by_image = defaultdict(list)
    for one in results:
        by_image[one["image_id"]].append(one)
    names = {x["id"]: x["name"] for x in source.ground_truth()["categories"]}
    cells = [
        _draw(source, index, by_image[source.image_id(index)], names)
        for index in range(min(images, len(source)))
    ]
    rows = -(-len(cells) // columns)
    step = _SIDE + _GAP
    grid = Image.new("RGB", (columns * step - _GAP, rows * step - _GAP), "white")
    for place, cell in enumerate(cells):
        grid.paste(cell, (place % columns * step, place // columns * step))
    grid.save(path, optimize=True)


def _draw(
    source: DetectionSource, index: int, found: Sequence[dict], names: dict[int, str]
) -> Image.Image:
    data, objects = source[index]
    with reading(source.where(index)):
        image = open_image(data, "RGB")
    scale = _SIDE / max(image.size)
    size = round(image.width * scale), round(image.height * scale)
    canvas = Image.new("RGB", (_SIDE, _SIDE), "white")
    canvas.paste(image.resize(size, Image.Resampling.BICUBIC), (0, 0))
    brush = ImageDraw.Draw(canvas)
    for box in objects.boxes:
        brush.rectangle([float(x * scale) for x in box], outline=_TRUE, width=2)
    for one in found[: len(objects.labels)]:
        left, top, width, height = (x * scale for x in one["bbox"])
        corners = left, top, left + max(width, 1), top + max(height, 1)
        brush.rectangle(corners, outline=_FOUND, width=2)
        text = f"{names.get(one['category_id'], '?')} {100 * one['score']:.0f}"
        place = max(left + 3, 0), max(top - 12, 0)
        brush.rectangle(brush.textbbox(place, text), fill="black")
        brush.text(place, text, fill=_FOUND)
    return canvas
