"""DOT on CIFAR-100: Zhao et al., 2023, table 3 (a).

::

    kdlab distill --recipe cifar100/dot/resnet32x4-resnet8x4
    kdlab distill --recipe cifar100/dkd_dot/vgg13-vgg8

======================== ===== ====== ===== ======= ===== =======
pair                     KD    + DOT  CRD   + DOT   DKD   + DOT
======================== ===== ====== ===== ======= ===== =======
resnet32x4-resnet8x4     73.33 75.12  75.51 75.99   76.32 76.64
vgg13-vgg8               72.98 73.77  73.94 74.21   74.68 74.86
resnet32x4-shufflenet_v2 74.45 75.55  75.65 76.64   77.07 77.41
======================== ===== ====== ===== ======= ===== =======

Means of three runs. One run takes at least 0.1 to 0.3 hours on an A100 (estimated by
`_cost`, not measured).
"""

from functools import partial
from typing import Any

from kdlab.papers.recipes._pairs import CRD, FIXED, KD, Pair, dkd, make_recipe
from kdlab.papers.recipes._recipe import CIFAR100, Recipe, make_table

SOURCE = "DOT, table 3 (a)"
BEST = "The paper's code reports the best epoch, CRD's baselines the last one."
OPEN = (
    f"The published code has no settings for this; those of its parts are used. {BEST}"
)

VGG = Pair("vgg13", "vgg8")

_row = partial(make_recipe, CIFAR100)


def _dot(pair: Pair, kd: float, crd: float, decoupled: float) -> tuple[Recipe, ...]:
    dot: dict[str, Any] = {"methods": ("dot",), "note": OPEN}
    return (
        _row("dot", pair, kd, SOURCE, note=BEST, **KD),
        _row("crd_dot", pair, crd, SOURCE, **dot, **CRD),
        _row("dkd_dot", pair, decoupled, SOURCE, **dot, **dkd(pair)),
    )


RECIPES = make_table(
    *_dot(Pair("resnet32x4", "resnet8x4"), 75.12, 75.99, 76.64),
    *_dot(VGG, 73.77, 74.21, 74.86),
    *_dot(Pair("resnet32x4", "shufflenet_v2"), 75.55, 76.64, 77.41),
    # The baselines of the other pairs are in the table of DTO-KD.
    _row("kd", VGG, 72.98, SOURCE, **KD),
    _row("crd", VGG, 73.94, SOURCE, **FIXED, **CRD),
    _row("dkd", VGG, 74.68, SOURCE, **FIXED, **dkd(VGG)),
)
