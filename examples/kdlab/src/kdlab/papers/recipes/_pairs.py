"""Recipes of a teacher and a student."""

from typing import Any, NamedTuple

from kdlab.papers.recipes._recipe import FOLDERS, SLOW, Recipe
from kdlab.settings.config import Config, configure


class Pair(NamedTuple):
    """A teacher and a student, by their names in the table of models."""

    teacher: str
    student: str

    @property
    def name(self) -> str:
        """Both without the ending that tells variants of a network apart."""
        short = (_short(network) for network in self)
        return "-".join(short)


def _short(network: str) -> str:
    return network.removesuffix("_imagenet").removesuffix("_tiny")


def distilled(
    base: Config,
    label: str,
    pair: Pair,
    published: float | None,
    source: str,
    *,
    note: str = "",
    **settings: Any,
) -> Recipe:
    """A recipe of one method on one pair.

    Args:
        base: The settings of the data set.
        label: Second part of its name; the method too, unless `settings` have others.
        pair: Teacher and student.
        published: The number of the paper.
        source: Where it stands.
        note: What is open.
        **settings: What differs from `base`.
    """
    folder = FOLDERS[base.data.dataset]
    if base.data.dataset == "cifar100" and pair.student in SLOW:
        settings = {"learning_rate": 0.01} | settings
    chosen: dict[str, Any] = {"methods": (label,)} | settings
    config = configure(
        base,
        name=f"{folder}/{label}/{pair.name}",
        teacher=pair.teacher,
        student=pair.student,
        **chosen,
    )
    teacher = f"{folder}/teachers/{pair.teacher}"
    return Recipe(config, published, source, teacher, note)


FIXED: dict[str, Any] = {"methods": ("kd",)}
"""Fixed weights of whatever loss."""

KD: dict[str, Any] = {"loss": "kd", "alpha": 0.9, "temperature": 4.0}
"""Hinton's loss as CRD's protocol weighs it: 0.1 task, 0.9 distillation."""

CRD: dict[str, Any] = {"loss": "crd"}
"""16,384 negatives, temperature 0.07; its weight of 0.8 is part of the loss."""


def dkd(pair: Pair) -> dict[str, Any]:
    """DKD on CIFAR-100: weights 1 and 1, and 20 epochs in which it comes in."""
    beta = _BETA.get(pair, 8.0)
    return {"loss": "dkd", "loss_beta": beta, "loss_warmup": 20.0, "temperature": 4.0}


# Where it is not 8: megvii-research/mdistiller a08d46f, configs/cifar100/dkd.
_BETA = {
    Pair("resnet56", "resnet20"): 2.0,
    Pair("wrn_40_2", "wrn_40_1"): 6.0,
    Pair("vgg13", "vgg8"): 6.0,
}
