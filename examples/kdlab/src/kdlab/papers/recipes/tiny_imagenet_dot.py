"""DOT on Tiny-ImageNet: Zhao et al., 2023, table 3 (b).

::

    kdlab distill --recipe tiny_imagenet/dot/resnet18-mobilenet_v2

====================== ===== ====== ===== ======= ===== =======
pair                   KD    + DOT  CRD   + DOT   DKD   + DOT
====================== ===== ====== ===== ======= ===== =======
resnet18-mobilenet_v2  58.35 64.01  61.18 64.12   62.04 64.60
resnet18-shufflenet_v2 62.26 65.75  63.97 65.21   65.06 66.21
====================== ===== ====== ===== ======= ===== =======

Means of three runs. One run takes at least 0.7 to 0.8 hours on an A100 (estimated by
`_cost`, not measured).
"""

from functools import partial
from typing import Any

from kdlab.papers.recipes._pairs import CRD, FIXED, KD, Pair, dkd, make_recipe
from kdlab.papers.recipes._recipe import TINY_IMAGENET, Recipe, make_table

SOURCE = "DOT, table 3 (b)"
OPEN = (
    "The published code has settings only for KD with DOT on this data set; those of "
    "CIFAR-100 are used for the loss."
)
POOLED = (
    "The published ShuffleNetV2 does not run on 64 pixels; here its last maps are "
    "averaged over any size."
)

_row = partial(make_recipe, TINY_IMAGENET)


def _pair(
    pair: Pair, plain: tuple[float, ...], dot: tuple[float, ...], note: str = ""
) -> tuple[Recipe, ...]:
    """Makes the recipes of KD, CRD and DKD, each without and with DOT."""
    with_dot: dict[str, Any] = {"methods": ("dot",), "note": f"{OPEN} {note}".strip()}
    fixed = FIXED | {"note": with_dot["note"]}
    decoupled = dkd(pair)
    return (
        _row("kd", pair, plain[0], SOURCE, note=note, **KD),
        _row("crd", pair, plain[1], SOURCE, **fixed, **CRD),
        _row("dkd", pair, plain[2], SOURCE, **fixed, **decoupled),
        _row("dot", pair, dot[0], SOURCE, note=note, **KD),
        _row("crd_dot", pair, dot[1], SOURCE, **with_dot, **CRD),
        _row("dkd_dot", pair, dot[2], SOURCE, **with_dot, **decoupled),
    )


RECIPES = make_table(
    *_pair(
        Pair("resnet18", "mobilenet_v2_tiny"),
        (58.35, 61.18, 62.04),
        (64.01, 64.12, 64.60),
    ),
    *_pair(
        Pair("resnet18", "shufflenet_v2"),
        (62.26, 63.97, 65.06),
        (65.75, 65.21, 66.21),
        POOLED,
    ),
)
