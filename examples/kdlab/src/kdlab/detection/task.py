"""The images that an experiment trains and evaluates on."""

from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import Progress

from kdlab.data.detection.coco_files import CocoFiles, annotation_file
from kdlab.data.detection.coco_tfds import CocoTfds
from kdlab.data.detection.scenes import SceneConfig, write_scenes
from kdlab.data.detection.source import DetectionSource, Subset
from kdlab.data.detection.stream import Shape, eval_stream, train_stream
from kdlab.data.sources.errors import missing_files
from kdlab.data.sources.tfds_source import find_prepared
from kdlab.detection.config import DetectConfig

TYPICAL_SIDE = 640  # of an image of COCO, to whose areas those of canvases are scaled
EVAL_SIDE, EVAL_LONGEST = 800, 1333


class Task(NamedTuple):
    """The images of an experiment.

    Attributes:
        train: All training images, which the teacher learns from.
        val: Images to evaluate on.
        num_classes: Number of class logits: the largest category and one.
        scale: See :func:`kdlab.detection.evaluation.coco_metrics.compute_metrics`.
        config: The settings.
    """

    train: DetectionSource
    val: DetectionSource
    num_classes: int
    scale: float
    config: DetectConfig

    @property
    def shape(self) -> Shape:
        """The static shapes of batches."""
        return Shape(self.config.pad_to, self.config.max_objects)

    def part(self, count: int | None) -> DetectionSource:
        """Returns the first training images; None: all."""
        return self.train if count is None else Subset(self.train, count)

    def batches(self, source: DetectionSource, seed: int, start: int) -> Any:
        """Returns endless training batches from a step on."""
        return train_stream(
            source,
            self.shape,
            batch_size=self.config.batch_size,
            seed=seed,
            augment=self.config.augmentation,
            start=start,
        )

    def once(self, source: DetectionSource) -> Any:
        """Returns batches that hold every image once."""
        side = EVAL_SIDE if self.config.augment else None
        return eval_stream(
            source,
            self.shape,
            batch_size=self.config.batch_size,
            side=side,
            longest=EVAL_LONGEST,
        )


def open_task(config: DetectConfig, progress: Progress) -> Task:
    """Opens the images, after writing the scenes of digits if necessary.

    Raises:
        FileNotFoundError: If COCO is not there; the message says what to do.
    """
    if config.dataset == "coco":
        train, val = _open_coco(config.data_dir)
        scale = 1.0
    else:
        scenes = scene_config(config)
        bar = progress.add_task("scenes", total=scenes.train + scenes.val)
        write_scenes(scenes, lambda done: progress.update(bar, completed=done))
        progress.remove_task(bar)
        train, val = (CocoFiles(scenes.folder, split) for split in ("train", "val"))
        scale = scenes.side / TYPICAL_SIDE
    categories = val.ground_truth()["categories"]
    num_classes = max(x["id"] for x in categories) + 1
    kept = val if config.val_images is None else Subset(val, config.val_images)
    return Task(train, kept, num_classes, scale, config)


def scene_config(config: DetectConfig) -> SceneConfig:
    """Returns the settings of the scenes of an experiment."""
    if config.smoke:
        folder = config.runs / "detection" / "scenes_smoke"
        return SceneConfig(
            folder, "digits", train=8, val=4, side=32, smallest=8, largest=16
        )
    return SceneConfig(config.runs / "detection" / "scenes")


def _open_coco(data_dir: Path | None) -> tuple[DetectionSource, DetectionSource]:
    """Opens COCO 2017, from its own files or as prepared by TFDS."""
    splits = "train2017", "val2017"
    if data_dir and all(annotation_file(data_dir, split).is_file() for split in splits):
        train, val = (CocoFiles(data_dir, split) for split in splits)
        return train, val
    prepared = find_prepared("coco/2017", data_dir)
    if prepared is not None:
        return CocoTfds(prepared, "train"), CocoTfds(prepared, "validation")
    raise missing_files(
        "COCO 2017",
        files=[
            f"annotations/instances_{splits[0]}.json and {splits[0]}/ (the same "
            f"for {splits[1]})"
        ],
        folder=data_dir,
        how="https://cocodataset.org/#download, or prepare coco/2017 with TFDS "
        "(kdlab prepare coco/2017 --data-dir DATA)",
    )
