"""ImageNet: DOT of Zhao et al., 2023, table 3 (c), and DTO-KD on the same pairs.

::

    kdlab distill --recipe imagenet/dot/resnet50-mobilenet_v1

===================== ===== ===== ===== ====== =======
pair                  KD    CRD   DKD   KD+DOT DKD+DOT
===================== ===== ===== ===== ====== =======
resnet34-resnet18     71.03 71.17 71.70 71.72  72.03
resnet50-mobilenet_v1 70.50 71.37 72.05 73.09  73.33
===================== ===== ===== ===== ====== =======

One run takes at least 9 to 19 hours on an A100 (estimated by `_cost`, not measured).
"""

from functools import partial
from typing import Any

from kdlab.papers.recipes._pairs import CRD, FIXED, Pair, make_recipe
from kdlab.papers.recipes._recipe import IMAGENET, Recipe, make_table

SOURCE = "DOT, table 3 (c)"
OPEN = "The published code has no settings for this; those of its parts are used."
UNPUBLISHED = (
    "The paper trains other networks on ImageNet; the settings of KD are used, as the "
    "loss is scale-free under DTO-KD."
)

KD: dict[str, Any] = {"loss": "kd", "alpha": 0.5, "temperature": 1.0}

_row = partial(make_recipe, IMAGENET)


def _pair(pair: Pair, beta: float, published: tuple[float, ...]) -> tuple[Recipe, ...]:
    """Makes the recipes of KD, CRD, DKD, KD with DOT and DKD with DOT."""
    dkd = {"loss": "dkd", "loss_beta": beta, "loss_warmup": 0.0, "temperature": 1.0}
    # The reference halves batch size and rate for CRD.
    crd = FIXED | CRD | {"batch_size": 256, "learning_rate": 0.1}
    dot: dict[str, Any] = {"methods": ("dot",), "delta": 0.09}
    dto = ("not reported for DTO-KD", UNPUBLISHED)
    return (
        _row("kd", pair, published[0], SOURCE, **KD),
        _row("crd", pair, published[1], SOURCE, **crd),
        _row("dkd", pair, published[2], SOURCE, **FIXED, **dkd),
        _row("dot", pair, published[3], SOURCE, **dot, **KD),
        _row("dkd_dot", pair, published[4], SOURCE, note=OPEN, **dot, **dkd),
        _row("dto_kd", pair, None, dto[0], note=dto[1], **KD),
        _row("dto_kd_shared", pair, None, dto[0], note=dto[1], **KD),
        _row("dto_kd_amortized", pair, None, dto[0], note=dto[1], **KD),
    )


RECIPES = make_table(
    *_pair(
        Pair("resnet34_imagenet", "resnet18_imagenet"),
        0.5,
        (71.03, 71.17, 71.70, 71.72, 72.03),
    ),
    *_pair(
        Pair("resnet50_imagenet", "mobilenet_v1"),
        2.0,
        (70.50, 71.37, 72.05, 73.09, 73.33),
    ),
)
