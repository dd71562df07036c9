"""Sweeps over one setting: DOT, tables 1, 2, 4 and 5.

A prefix runs all recipes whose names begin with it, and `compare` tabulates them::

    kdlab distill --recipe cifar100/sweeps/delta/
    kdlab compare runs/cifar100/sweeps/delta/*

One run takes at least 0.2 to 0.7 hours on an A100 (estimated by `_cost`, not measured).
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from kdlab.papers.recipes._pairs import KD, Pair, make_recipe
from kdlab.papers.recipes._recipe import CIFAR100, TINY_IMAGENET, Recipe, make_table
from kdlab.settings.config import Config, configure

PAIR_OPEN = "The table does not name the pair; its KD number is that of this pair."

DELTA = {
    -0.09: 61.58,
    -0.075: 68.88,
    -0.05: 72.77,
    -0.025: 72.86,
    0.0: 73.33,
    0.025: 74.08,
    0.05: 74.22,
    0.075: 75.12,
    0.09: 74.43,
}
MOMENTUM = {
    0.81: 73.53,
    0.825: 73.66,
    0.85: 73.45,
    0.875: 73.21,
    0.9: 73.33,
    0.925: 73.16,
    0.95: 73.14,
    0.975: 68.75,
    0.99: 37.19,
}
# The papers' alpha is the weight of the task.
TASK_WEIGHT_CIFAR100 = {0.1: 73.33, 0.25: 73.56, 0.5: 73.49, 0.75: 73.23, 0.9: 73.19}
TASK_WEIGHT_TINY = {0.1: 58.35, 0.25: 58.86, 0.5: 59.23, 0.75: 58.36, 0.9: 57.45}

RESNETS = Pair("resnet32x4", "resnet8x4")
TINY = Pair("resnet18", "mobilenet_v2_tiny")


def _sweep(
    base: Config,
    pair: Pair,
    method: str,
    numbers: dict[float, float],
    source: str,
    *,
    over: str,
    note: str = "",
) -> Iterator[Recipe]:
    for value, published in numbers.items():
        setting: dict[str, Any] = {over: value}
        if over == "task_weight":
            setting = {"alpha": 1 - value}
        settings = KD | setting
        recipe = make_recipe(
            base, method, pair, published, source, note=note, **settings
        )
        folder = recipe.name.split("/")[0]
        config = configure(recipe.config, name=f"{folder}/sweeps/{over}/{value:g}")
        yield dataclasses.replace(recipe, config=config)


RECIPES = make_table(
    *_sweep(
        CIFAR100, RESNETS, "dot", DELTA, "DOT, table 1", over="delta", note=PAIR_OPEN
    ),
    *_sweep(
        CIFAR100,
        RESNETS,
        "kd",
        MOMENTUM,
        "DOT, table 2",
        over="momentum",
        note=PAIR_OPEN,
    ),
    *_sweep(
        CIFAR100,
        RESNETS,
        "kd",
        TASK_WEIGHT_CIFAR100,
        "DOT, table 4",
        over="task_weight",
    ),
    *_sweep(
        TINY_IMAGENET, TINY, "kd", TASK_WEIGHT_TINY, "DOT, table 5", over="task_weight"
    ),
)
