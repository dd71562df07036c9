"""Scenes of real digits on textured canvases, written in the format of COCO."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from kdlab.basics.writing import write_text
from kdlab.data.catalogue import load
from kdlab.data.detection.coco_files import annotation_file, image_folder

SPLITS = ("train", "val")
INK = 64  # pixels of a source image above this belong to the object
MOST_OVERLAP = 0.15  # of the smaller of two boxes
_TRIES = 20  # places to try for an object before it is left out


@dataclasses.dataclass(frozen=True)
class SceneConfig:
    """Write scenes of digits with boxes, in the format of COCO.

    Real images, by default the 5,000 digits of MNIST that a dependency ships, are
    resized and pasted on textured canvases. Validation scenes show images of the test
    part, which no training scene shows. The same seed writes the same files.
    """

    folder: Path = Path("runs/scenes")
    """Folder to write to: annotations/instances_SPLIT.json and images in SPLIT/."""
    source: str = "mnist5k"
    """Data set of small greyscale images, such as mnist5k or fashion_mnist."""
    data_dir: Path | None = None
    """Folder of downloaded data sets."""
    train: int = 4000
    """Number of training scenes."""
    val: int = 400
    """Number of validation scenes."""
    side: int = 64
    """Side of a canvas in pixels."""
    objects: int = 3
    """Maximum number of objects in a scene; each number from 1 is equally likely."""
    smallest: int = 16
    """Shortest longer side of an object in pixels."""
    largest: int = 36
    """Longest longer side of an object in pixels."""
    seed: int = 0
    """Seed of everything that is drawn."""

    def __post_init__(self):
        if not 1 <= self.smallest <= self.largest <= self.side:
            raise ValueError(
                f"objects of {self.smallest} to {self.largest} pixels do not fit a "
                f"canvas of {self.side}: expected 1 <= --smallest <= --largest <= "
                "--side"
            )
        if min(self.train, self.val, self.objects) < 1:
            raise ValueError("--train, --val and --objects must be at least 1")


class Scene(NamedTuple):
    """A canvas and its objects.

    Attributes:
        pixels: The canvas.
        boxes: Left, top, width and height in pixels, one row per object.
        labels: Class of each object.
        areas: Number of pixels of each object.
    """

    pixels: UInt8[np.ndarray, "h w"]
    boxes: list[tuple[int, int, int, int]]
    labels: list[int]
    areas: list[int]


def write_scenes(config: SceneConfig, note: Callable[[int], None]) -> None:
    """Writes images and annotations of both splits, unless they are there already.

    Args:
        config: The settings.
        note: Called with the number of scenes done, after each.

    Raises:
        ValueError: If the source does not hold greyscale images, or the folder holds
            scenes of other settings.
        FileNotFoundError: If the source is not there; the message says what to do.
    """
    described = json.dumps(dataclasses.asdict(config) | {"folder": ""}, default=str)
    record = config.folder / "scenes.json"
    if record.exists():
        if record.read_text() != described:
            raise ValueError(
                f"{config.folder} holds scenes of other settings ({record}): choose "
                "another --folder, or move it away."
            )
        return
    source = load(config.source, data_dir=config.data_dir)
    parts = {
        "train": (source.train_images, source.train_labels, config.train),
        "val": (source.test_images, source.test_labels, config.val),
    }
    done = 0
    for number, split in enumerate(SPLITS):
        images, labels, count = parts[split]
        if images.shape[-1] != 1:
            raise ValueError(f"{config.source} is in colour; scenes need greyscale")
        folder = image_folder(config.folder, split)
        folder.mkdir(parents=True, exist_ok=True)
        scenes = []
        for index in range(count):
            rng = np.random.default_rng((config.seed, number, index))
            scene = draw_scene(images[..., 0], labels, config, rng)
            Image.fromarray(scene.pixels).save(folder / _file_name(index))
            scenes.append(scene)
            done += 1
            note(done)
        target = annotation_file(config.folder, split)
        target.parent.mkdir(exist_ok=True)
        write_text(target, json.dumps(describe(scenes, config, source.num_classes)))
    write_text(record, described)


def draw_scene(
    images: UInt8[np.ndarray, "n h w"],
    labels: np.ndarray,
    config: SceneConfig,
    rng: np.random.Generator,
) -> Scene:
    """Draws one scene.

    Args:
        images: Images to paste, ink bright on dark.
        labels: Their classes.
        config: Sizes and counts.
        rng: Source of all random numbers.

    Returns:
        The scene, with at least one object. Boxes enclose the ink tightly, and two of
        them share at most 15 % of the smaller one.
    """
    canvas = _texture(config.side, rng)
    scene = Scene(np.empty(0, np.uint8), [], [], [])
    for _ in range(rng.integers(1, config.objects + 1)):
        index = int(rng.integers(len(images)))
        ink = _resize(images[index], config, rng)
        place = _find_place(ink.shape, scene.boxes, config.side, rng)
        if place is None:
            continue
        left, top = place
        height, width = ink.shape
        part = canvas[top : top + height, left : left + width]
        alpha = ink / 255
        part[:] = part * (1 - alpha) + rng.uniform(160, 255) * alpha
        scene.boxes.append((left, top, width, height))
        scene.labels.append(int(labels[index]))
        scene.areas.append(int(np.sum(ink > INK)))
    canvas += rng.normal(0, 6, canvas.shape)
    return scene._replace(pixels=np.clip(canvas, 0, 255).astype(np.uint8))


def describe(scenes: list[Scene], config: SceneConfig, num_classes: int) -> dict:
    """Returns the annotations of scenes in the format of COCO.

    Categories are numbered from 0, annotations and images from 1: the evaluation of
    COCO takes the annotation 0 for none.
    """
    side = config.side
    annotations = [
        {
            "image_id": image,
            "category_id": label,
            "bbox": list(box),
            "area": area,
            "iscrowd": 0,
        }
        for image, scene in enumerate(scenes, 1)
        for box, label, area in zip(scene.boxes, scene.labels, scene.areas, strict=True)
    ]
    return {
        "images": [
            {
                "id": image,
                "file_name": _file_name(image - 1),
                "width": side,
                "height": side,
            }
            for image in range(1, len(scenes) + 1)
        ],
        "annotations": [{"id": i, **x} for i, x in enumerate(annotations, 1)],
        "categories": [{"id": i, "name": str(i)} for i in range(num_classes)],
    }


def _file_name(index: int) -> str:
    return f"{index:06d}.png"


def _texture(side: int, rng: np.random.Generator) -> np.ndarray:
    """Draws a dark canvas of smooth noise at three scales, with mean 60."""
    canvas = np.full((side, side), 60.0)
    for cells in (3, 6, 12):
        grid = Image.fromarray(rng.normal(0, 12, (cells, cells)).astype(np.float32))
        canvas += np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC))
    return canvas


def _resize(
    image: UInt8[np.ndarray, "h w"], config: SceneConfig, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w"]:
    """Crops the ink, and draws the size of its longer side and its proportions."""
    rows, columns = (np.flatnonzero((image > INK).any(axis=axis)) for axis in (1, 0))
    tight = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = tight.shape
    width *= math.exp(rng.uniform(-0.2, 0.2))
    low, high = math.log(config.smallest), math.log(config.largest)
    scale = math.exp(rng.uniform(low, high)) / max(height, width)
    size = max(round(width * scale), 3), max(round(height * scale), 3)
    return np.asarray(Image.fromarray(tight).resize(size, Image.Resampling.BILINEAR))


def _find_place(
    shape: tuple[int, ...],
    boxes: list[tuple[int, int, int, int]],
    side: int,
    rng: np.random.Generator,
) -> tuple[int, int] | None:
    """Finds a place with little overlap; None if there is none after some tries."""
    height, width = shape
    for _ in range(_TRIES):
        left = int(rng.integers(side - width + 1))
        top = int(rng.integers(side - height + 1))
        mine = left, top, width, height
        if all(_overlap(mine, other) <= MOST_OVERLAP for other in boxes):
            return left, top
    return None


def _overlap(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Returns the shared area as a fraction of the smaller box."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    smaller = min(a[2] * a[3], b[2] * b[3])
    return max(across, 0) * max(down, 0) / smaller
