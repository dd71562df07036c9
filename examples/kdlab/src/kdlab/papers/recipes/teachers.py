"""Networks trained on labels alone: the teachers and the baselines of the students.

Weights are written to RUNS/NAME/weights, where other recipes find them::

    kdlab distill --recipe cifar100/teachers/resnet32x4

Published weights work as well: pass ``--teacher-weights FILE`` to any recipe. One run
takes at least 0.003 to 19 hours on an A100 (estimated by `_cost`, not measured).
"""

from kdlab.papers.recipes._recipe import (
    CIFAR100,
    IMAGENET,
    SLOW,
    TINY_IMAGENET,
    Recipe,
    make_table,
)
from kdlab.settings.config import Config, configure

TEACHER_TRAINING = (
    "The papers use published weights and do not give the schedule of the teacher; "
    "that of the students is used."
)


def _alone(
    base: Config, name: str, student: str, published: float, source: str, note: str = ""
) -> Recipe:
    config = configure(
        base,
        name=f"{name}/{student}",
        teacher=None,
        methods=("labels_only",),
        student=student,
    )
    return Recipe(config, published, source, note=note)


def _teacher(base: Config, folder: str, student: str, published: float) -> Recipe:
    base = configure(base, seeds=1)
    source, name = "CRD, tables 1 and 2", f"{folder}/teachers"
    if folder != "cifar100":
        source = "DOT, table 3"
    return _alone(base, name, student, published, source, TEACHER_TRAINING)


def _student(base: Config, folder: str, student: str, published: float) -> Recipe:
    if folder == "cifar100" and student in SLOW:
        base = configure(base, learning_rate=0.01)
    source = "CRD, tables 1 and 2" if folder == "cifar100" else "DOT, table 3"
    return _alone(base, f"{folder}/labels_only", student, published, source)


# The usual supervised training on ImageNet.
_IMAGENET_TEACHER = configure(IMAGENET, batch_size=256, learning_rate=0.1)

RECIPES = make_table(
    _teacher(CIFAR100, "cifar100", "resnet56", 72.34),
    _teacher(CIFAR100, "cifar100", "resnet32x4", 79.42),
    _teacher(CIFAR100, "cifar100", "resnet50", 79.34),
    _teacher(CIFAR100, "cifar100", "wrn_40_2", 75.61),
    _teacher(CIFAR100, "cifar100", "vgg13", 74.64),
    _teacher(TINY_IMAGENET, "tiny_imagenet", "resnet18", 62.99),
    _teacher(_IMAGENET_TEACHER, "imagenet", "resnet34_imagenet", 73.31),
    _teacher(_IMAGENET_TEACHER, "imagenet", "resnet50_imagenet", 76.16),
    _student(CIFAR100, "cifar100", "resnet8x4", 72.50),
    _student(CIFAR100, "cifar100", "resnet20", 69.06),
    _student(CIFAR100, "cifar100", "wrn_40_1", 71.98),
    _student(CIFAR100, "cifar100", "vgg8", 70.36),
    _student(CIFAR100, "cifar100", "mobilenet_v2", 64.60),
    _student(CIFAR100, "cifar100", "shufflenet_v1", 70.50),
    _student(CIFAR100, "cifar100", "shufflenet_v2", 71.82),
    _student(TINY_IMAGENET, "tiny_imagenet", "mobilenet_v2_tiny", 56.28),
    _student(TINY_IMAGENET, "tiny_imagenet", "shufflenet_v2", 60.78),
    _student(IMAGENET, "imagenet", "resnet18_imagenet", 69.75),
    _student(IMAGENET, "imagenet", "mobilenet_v1", 68.87),
)
