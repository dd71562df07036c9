"""Makes recipes of a teacher and a student."""

from typing import Any, NamedTuple

from kdlab.papers.recipes._recipe import FOLDERS, SLOW, Recipe
from kdlab.settings.config import Config, configure


class Pair(NamedTuple):
    """A teacher and a student, by their names in the table of models."""

    teacher: str
    student: str

    @property
    def name(self) -> str:
        """Both names without the suffix of variants."""
        short = (_short(network) for network in self)
        return "-".join(short)


def _short(network: str) -> str:
    return network.removesuffix("_imagenet").removesuffix("_tiny")


def make_recipe(
    base: Config,
    label: str,
    pair: Pair,
    published: float | None,
    source: str,
    *,
    note: str = "",
    **settings: Any,
) -> Recipe:
    """Makes the recipe of one method on one pair.

    Args:
        base: Settings of the data set.
        label: Second part of the name, and the method unless `settings` has others.
        pair: Teacher and student.
        published: Published accuracy.
        source: Source of that number.
        note: Remark on what the sources leave open.
        **settings: Settings that differ from `base`.
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
"""Fixed weights, whatever the loss."""

KD: dict[str, Any] = {"loss": "kd", "alpha": 0.9, "temperature": 4.0}
"""Hinton's loss with the weights of CRD's protocol: 0.1 task, 0.9 distillation."""

CRD: dict[str, Any] = {"loss": "crd"}
"""16,384 negatives, temperature 0.07; its weight of 0.8 is part of the loss."""


def dkd(pair: Pair) -> dict[str, Any]:
    """Returns the settings of DKD on CIFAR-100: weights 1 and 1, 20 warm-up epochs."""
    beta = _BETA.get(pair, 8.0)
    return {"loss": "dkd", "loss_beta": beta, "loss_warmup": 20.0, "temperature": 4.0}


# Pairs whose beta is not 8: megvii-research/mdistiller a08d46f, configs/cifar100/dkd.
_BETA = {
    Pair("resnet56", "resnet20"): 2.0,
    Pair("wrn_40_2", "wrn_40_1"): 6.0,
    Pair("vgg13", "vgg8"): 6.0,
}
