"""COCO: the detectors of DTO-KD of Hayder et al., 2026, and their rivals.

::

    kdlab detect --recipe coco/dto_kd/nano --data-dir DATA --teacher-weights FILE

============== ==== ==== ===== ====================
ViDT           nano tiny small teacher
============== ==== ==== ===== ====================
labels_only    40.4 44.8 47.5  none
token_matching 41.9 46.6 49.2  base
vkd            43.0 46.9 48.5  base
dto_kd         43.7 47.4 49.6  base
token_matching 41.5 45.8       small
vkd            42.2 45.9       small
dto_kd         43.2 46.9       small
============== ==== ==== ===== ====================

Teachers are published checkpoints (``vidt_base_150.pth``, ``vidt_small_150.pth``), and
the bodies of students start from published Swin classifiers. Hours are estimated from
multiply-adds of 800 x 1216 images, not measured.
"""

import dataclasses
import difflib

from kdlab.detection.config import DetectConfig
from kdlab.detection.methods import MethodName
from kdlab.papers.recipes._cost import FLOPS

SOURCE = "DTO-KD, table 3"
SMALL_SOURCE = "DTO-KD, table 5"
IMAGES, EPOCHS, BATCH = 118_287, 50, 16

GIGA_MULTIPLY_ADDS = {"nano": 34.8, "tiny": 107.5, "small": 196.1, "base": 338.5}
"""Billions of multiply-adds of one forward pass of an image of 800 x 1216 pixels."""

_NECK = 8.6  # of them, those of the neck

WEIGHTS = (
    "The paper does not say which checkpoint of the teacher it used (49.4 AP after 50 "
    "epochs, 50.4 after 150)"
)
FORM = (
    "which of its updates gave the number (its settings are those of the amortised "
    "one), its distance in detection (VkD's here), or the batch and the group of "
    "images over which VkD's tokens are standardised (2 here, as VkD has per device)"
)


@dataclasses.dataclass(frozen=True)
class DetectionRecipe:
    """A published number of COCO and the experiment that should reproduce it.

    Attributes:
        config: The settings; their name is the name of the recipe.
        published: AP in percent; None if no paper reports it.
        source: Paper and table of the number.
        note: What the sources leave open, and what was chosen.
    """

    config: DetectConfig
    published: float | None
    source: str
    note: str = ""

    @property
    def name(self) -> str:
        """Name for ``--recipe``."""
        return self.config.name

    @property
    def command(self) -> str:
        """Command that runs the recipe."""
        return f"kdlab detect --recipe {self.name}"

    @property
    def wall_time(self) -> float:
        """Estimated hours on an A100 at 30 % of its peak, with a ready teacher."""
        size, method = self.config.student.removeprefix("vidt_"), self.config.methods[0]
        one = GIGA_MULTIPLY_ADDS[size]
        student = 3 * one
        if method == "dto_kd":  # another backward pass through everything
            student += 2 * one
        elif method == "dto_kd_shared":  # two more through the neck
            student += 2 * 2 * _NECK
        teacher = GIGA_MULTIPLY_ADDS[self.config.teacher.removeprefix("vidt_")]
        step = student + (0 if method == "labels_only" else teacher)
        return 2e9 * step * IMAGES * EPOCHS / FLOPS / 3600


def _make(
    method: MethodName,
    size: str,
    published: float | None,
    *,
    teacher: str = "base",
    note: str = "",
) -> DetectionRecipe:
    """Makes the recipe of one student."""
    source = SOURCE if teacher == "base" else SMALL_SOURCE
    suffix = "" if teacher == "base" else f"-{teacher}_teacher"
    config = DetectConfig(
        name=f"coco/{method}/{size}{suffix}",
        methods=(method,),
        seeds=1,
        dataset="coco",
        train_images=None,
        augment=True,
        pad_to=128,
        max_objects=100,
        teacher=f"vidt_{teacher}",
        student=f"vidt_{size}",
        standardize_images=2,
        steps=EPOCHS * (IMAGES // BATCH),
        teacher_steps=EPOCHS * (IMAGES // BATCH),
        batch_size=BATCH,
        learning_rate=1e-4,
        min_rate=1e-7,
        schedule="epoch_cosine",
        warmup_steps=0,
        evaluations=EPOCHS,
        measure_every=500,
        checkpoint_seconds=900.0,
    )
    if published is None:
        source = "not reported for DTO-KD"
    return DetectionRecipe(config, published, source, note)


def _note(method: str) -> str:
    if method == "labels_only":
        return ""
    if method.startswith("dto_kd"):
        return f"{WEIGHTS}, {FORM}."
    batch = "; VkD trained with batches of 12." if method == "vkd" else "."
    return WEIGHTS + batch


_SIZES = "nano", "tiny", "small"
_TABLE: dict[MethodName, tuple[float, ...]] = {
    "labels_only": (40.4, 44.8, 47.5),
    "token_matching": (41.9, 46.6, 49.2),
    "vkd": (43.0, 46.9, 48.5),
    "dto_kd": (43.7, 47.4, 49.6),
    "dto_kd_amortized": (43.7, 47.4, 49.6),
}
_SMALL_TEACHER: dict[MethodName, tuple[float, ...]] = {
    "token_matching": (41.5, 45.8),
    "vkd": (42.2, 45.9),
    "dto_kd": (43.2, 46.9),
    "dto_kd_amortized": (43.2, 46.9),
}

DETECTION: dict[str, DetectionRecipe] = {
    recipe.name: recipe
    for recipe in (
        *(
            _make(method, size, number, note=_note(method))
            for method, row in _TABLE.items()
            for size, number in zip(_SIZES, row, strict=True)
        ),
        *(
            _make("dto_kd_shared", size, None, note=_note("dto_kd_shared"))
            for size in _SIZES
        ),
        *(
            _make(method, size, number, teacher="small", note=_note(method))
            for method, row in _SMALL_TEACHER.items()
            for size, number in zip(_SIZES, row, strict=False)
        ),
    )
}
"""Recipes of detectors by name."""


def find(name: str) -> DetectionRecipe:
    """Finds a recipe.

    Raises:
        ValueError: If there is no such recipe; the message names the closest ones.

    Examples:
        >>> from kdlab.papers.recipes import coco
        >>> coco.find("coco/dto_kd/nano").published
        43.7
    """
    if name in DETECTION:
        return DETECTION[name]
    close = difflib.get_close_matches(name, DETECTION, n=4, cutoff=0.3)
    raise ValueError(
        f"no recipe {name!r}; the closest are {', '.join(close) or 'none'}. `kdlab "
        "recipes` lists all."
    )
