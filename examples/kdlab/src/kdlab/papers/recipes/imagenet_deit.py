"""Transformers on ImageNet from a RegNetY-160: DTO-KD, Hayder et al., 2026.

::

    kdlab distill --recipe imagenet/dto_kd/regnety160-deit_ti --batch-size 256
    kdlab distill --recipe imagenet/vkd/regnety160-deit_s --teacher-weights FILE

=================== ===== ========= ===== ======
pair                none  DeiT hard VkD   DTO-KD
=================== ===== ========= ===== ======
regnety160-deit_ti  72.20 74.50     78.30 79.70
regnety160-deit_s   79.80 81.20     82.30 83.10
=================== ===== ========= ===== ======

The teacher has 82.6 %; its weights are those that DeiT publishes. One run takes at
least 45 to 205 hours on an A100 (estimated by `_cost`, not measured). A
``--batch-size`` below the published one is that of the micro-batches of a step.
"""

from collections.abc import Iterator
from typing import Any

from kdlab.papers.recipes._recipe import IMAGENET, Recipe, make_table
from kdlab.settings.config import Config, configure

DEIT = configure(
    IMAGENET,
    augment="rand_augment",
    interpolation="bicubic",
    erasing=0.25,
    repeats=3,
    mixup=0.8,
    cutmix=1.0,
    smoothing=0.1,
    epochs=300,
    batch_size=1024,
    batch_norm_group=None,
    optimizer="adamw",
    learning_rate=1e-3,
    schedule="deit",
    decay_epochs=(),
    warmup_epochs=5.0,
    warmup_rate=1e-6,
    last_rate=1e-5,
    weight_decay=0.05,
    decayed="deit",
    drop_path=0.1,
    dtype="bfloat16",
)
"""DeiT's protocol: facebookresearch/deit 7e160fe. Its averaged parameters are left
out, since its code does not evaluate them; it computes in float16, here in bfloat16."""

VKD = configure(
    DEIT,
    augment="three_augment",
    erasing=0.0,
    repeats=1,
    batch_size=512,
    learning_rate=5e-4,
    schedule="cosine",
    warmup_epochs=0.0,
    warmup_rate=0.0,
    last_rate=5e-6,
    drop_path=0.0,
    loss="vkd_tokens",
)
"""VkD's protocol as its code trains, roymiles/VkD 6f8a507: no warm-up, no stochastic
depth, and a rate that does not follow the batch."""

DTO = configure(
    DEIT,
    augment="three_augment",
    erasing=0.0,
    repeats=1,
    loss="vkd_tokens",
)
"""DTO-KD: DeiT's protocol with the augmentations of VkD."""

RULE = "The rate is 5e-4 for each 512 images, as the published batch has it."
ALONE = f"{RULE} DeiT's plain student, without a distillation token."
HARD = f"{RULE} Published with DeiT's own stem."
SOFT = (
    f"{RULE} Divided by examples and classes, as in DeiT's code: at 1,000 classes a "
    "thousandth of the usual loss. Weight 0.1 and temperature 3 are those of the paper."
)
PROJECTOR = (
    "Published with a stem of convolutions and a distillation token that is the mean "
    "of the patches. The released projector is 0 after one step (vkd_released); "
    "whether that of the published run was is not known."
)
OPEN = (
    "The paper gives the teacher, 300 epochs, AdamW with a rate of 1e-3, DeiT's "
    "recipe and VkD's augmentations; neither the stem (here VkD's; --student "
    "deit_ti_distilled has DeiT's), the batch (here DeiT's), stochastic depth (here "
    "DeiT's), clipping, nor the form of the update: exact, shared or amortised."
)
DOT_OPEN = (
    "The paper trains no transformer; DeiT's recipe and hard distillation, with DOT's "
    "two first moments in AdamW."
)
UNPUBLISHED = "not reported"
TEACHER = "regnety_160"


def _recipe(
    base: Config,
    label: str,
    name: str,
    student: str,
    published: float | None,
    source: str,
    note: str,
    **settings: Any,
) -> Recipe:
    chosen: dict[str, Any] = {"methods": ("kd",), "teacher": TEACHER} | settings
    config = configure(
        base, name=f"imagenet/{label}/regnety160-{name}", student=student, **chosen
    )
    teacher = chosen["teacher"] and f"imagenet/teachers/{TEACHER}"
    return Recipe(config, published, source, teacher, note, keeps_batch=True)


def _student(
    name: str, alone: float, hard: float, vkd: float, dto: float
) -> Iterator[Recipe]:
    """Makes the recipes of a student."""
    token, stem = f"{name}_distilled", f"{name}_conv"
    source = "DTO-KD, table on ImageNet"
    only: dict[str, Any] = {"teacher": None, "methods": ("labels_only",)}
    soft = {"loss": "deit_soft", "alpha": 0.1, "temperature": 3.0}
    yield _recipe(DEIT, "labels_only", name, name, alone, source, ALONE, **only)
    yield _recipe(DEIT, "deit_hard", name, token, hard, source, HARD, loss="deit_hard")
    yield _recipe(DEIT, "deit_soft", name, token, None, UNPUBLISHED, SOFT, **soft)
    yield _recipe(VKD, "vkd", name, stem, vkd, source, PROJECTOR)
    for method in ("dto_kd", "dto_kd_shared", "dto_kd_amortized"):
        yield _recipe(DTO, method, name, stem, dto, source, OPEN, methods=(method,))
    dot: dict[str, Any] = {"methods": ("dot",), "loss": "deit_hard"}
    yield _recipe(DEIT, "dot", name, token, None, UNPUBLISHED, DOT_OPEN, **dot)


def _teacher() -> Recipe:
    config = configure(
        DEIT,
        name=f"imagenet/teachers/{TEACHER}",
        teacher=None,
        methods=("labels_only",),
        student=TEACHER,
        drop_path=0.0,
    )
    note = (
        "DeiT publishes the weights (regnety_160-a5fe301d.pth, in timm the tag "
        "deit_in1k) and not their training; here that of the students. timm's default "
        "weights of this name are another training's, with ImageNet-12k."
    )
    return Recipe(
        config, 82.60, "DTO-KD, table on ImageNet", note=note, keeps_batch=True
    )


RECIPES = make_table(
    *_student("deit_ti", 72.20, 74.50, 78.30, 79.70),
    *_student("deit_s", 79.80, 81.20, 82.30, 83.10),
    _teacher(),
)
