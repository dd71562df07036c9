"""The settings of an experiment with detectors."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from kdlab.data.detection.augment import Augmentation
from kdlab.detection.methods import METHODS, MethodName
from kdlab.settings.checks import check_known, check_range
from kdlab.settings.parts import expand_home

Distance = Literal["vkd", "token_matching"]


@dataclasses.dataclass(frozen=True)
class DetectConfig:
    """Distil detectors: a large ViDT teaches a smaller one.

    By default on scenes of real digits that are written first, on two CPU cores. The
    teacher is trained on all scenes, the students on fewer, by each method and seed;
    then their average precision is compared. The same command resumes.
    """

    name: str = "digits"
    """Name of the experiment; everything is written to RUNS/detection/NAME."""
    runs: Path = Path("runs")
    """Parent folder."""
    methods: tuple[MethodName, ...] = METHODS
    """Methods to compare. labels_only: the detection loss alone; token_matching and
    vkd: its sum with that distance, at a fixed weight; dto_kd, dto_kd_shared and
    dto_kd_amortized balance it with --distance."""
    seeds: int = 3
    """Number of students per method."""

    dataset: Literal["digits", "coco"] = "digits"
    """digits: scenes of `kdlab make-scenes`; coco: COCO 2017 in --data-dir, its own
    files or prepared by TFDS."""
    data_dir: Path | None = None
    """Folder of COCO."""
    train_images: int | None = 1000
    """Number of images that students see; None: all."""
    val_images: int | None = 200
    """Number of images to evaluate on; None: all."""
    augment: bool = False
    """Whether training images are augmented as in DETR (mirrored, resized, cropped);
    evaluation then resizes the shorter side to 800."""
    pad_to: int = 32
    """Images are padded to a multiple of it; each padded size is compiled once."""
    max_objects: int = 3
    """Entries for the objects of an image; an image with more loses the last ones."""

    teacher: str = "vidt_digits_wide"
    """Network of the teacher."""
    teacher_weights: Path | None = None
    """Published checkpoint of the teacher; None: it is trained first."""
    student: str = "vidt_digits"
    """Network of the students."""
    student_weights: Path | None = None
    """Published weights of a Swin classifier for the body of the students."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the computation; parameters and losses are float32."""
    remat: bool = False
    """Whether backward passes compute blocks again instead of keeping them."""

    distance: Distance = "vkd"
    """Distillation loss of the methods of DTO-KD."""
    weight: float = 4.0
    """Fixed weight of the distillation loss."""
    standardize_images: int | None = None
    """Images whose tokens VkD standardises together; the reference takes the 2 of each
    of its devices. None: the whole batch."""

    steps: int = 400
    """Training steps of a student."""
    teacher_steps: int = 2500
    """Training steps of the teacher."""
    batch_size: int = 16
    """Images per step."""
    learning_rate: float = 1e-3
    """Rate of AdamW."""
    min_rate: float = 1e-5
    """Rate at the end of the cosine."""
    schedule: Literal["cosine", "epoch_cosine"] = "cosine"
    """cosine: falls at every step; epoch_cosine: after every epoch, and the first two
    run at the full rate, as in ViDT."""
    warmup_steps: int = 50
    """Steps in which the rate rises to the full one."""
    weight_decay: float = 1e-4
    """Decoupled weight decay."""
    clip: float = 0.1
    """Maximum norm of the combined gradient."""

    evaluations: int = 4
    """Number of evaluations in a training, the last at its end."""
    measure_every: int = 20
    """Steps between measurements of the two gradients."""
    devices: int | None = None
    """Number of devices to divide batches over; None: all."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints."""
    cache_teacher: bool = True
    """Without augmentation, run the teacher once on each image and keep its tokens in
    memory."""
    time_steps: bool = False
    """Only print the time of a step of each method, relative to that of vkd."""
    smoke: bool = False
    """Run the same code for seconds: few steps of tiny networks on tiny scenes."""

    def __post_init__(self):
        expand_home(self)
        check_range(self)
        for method in self.methods:
            check_known("methods", method, METHODS)
        positive = ("steps", "teacher_steps", "evaluations", "measure_every", "pad_to")
        for field in (*positive, "max_objects"):
            if getattr(self, field) < 1:
                raise ValueError(f"--{field.replace('_', '-')} must be at least 1")
        if self.evaluations > min(self.steps, self.teacher_steps):
            raise ValueError("--evaluations must not exceed --steps")

    @property
    def directory(self) -> Path:
        """Folder of the experiment."""
        return self.runs / "detection" / self.name

    @property
    def augmentation(self) -> Augmentation | None:
        """The augmentation of training images."""
        return Augmentation() if self.augment else None

    def settings(self) -> dict[str, Any]:
        """Returns the settings that change results, as JSON values by name."""
        kept = {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in WITHOUT_EFFECT
        }
        return json.loads(json.dumps(kept, default=str))


WITHOUT_EFFECT = {
    *("name", "runs", "methods", "seeds", "data_dir", "devices"),
    *("checkpoint_seconds", "cache_teacher", "time_steps", "smoke"),
}
"""Settings that do not change the result of a run, up to rounding."""


def shrink(config: DetectConfig) -> DetectConfig:
    """Shrinks an experiment to three steps of tiny networks; losses stay as they are.

    COCO is replaced by scenes of digits, published weights by initial ones.
    """
    return dataclasses.replace(
        config,
        name=f"smoke/{config.name}",
        dataset="digits",
        train_images=8,
        val_images=4,
        augment=False,
        pad_to=32,
        max_objects=3,
        teacher="vidt_smoke",
        student="vidt_smoke",
        teacher_weights=None,
        student_weights=None,
        standardize_images=config.standardize_images and 2,
        steps=3,
        teacher_steps=3,
        batch_size=8,
        warmup_steps=min(config.warmup_steps, 1),
        evaluations=1,
        measure_every=2,
        seeds=1,
    )
