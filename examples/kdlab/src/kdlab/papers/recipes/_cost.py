r"""Estimates the cost of a training from multiply-adds, without measurement.

.. math::
    \mathrm{hours} = \frac{2 \, E N (p\,m_{student} + m_{teacher})}
        {3600 \cdot 0.3 \cdot 156 \cdot 10^{12}}

with :math:`E` epochs of :math:`N` images, :math:`m` multiply-adds of one forward pass
and :math:`p` the cost of a step in forward passes: 3 with one backward pass, and 2 more
for each other one. The denominator is 30 % of the TensorFloat-32 peak of one NVIDIA
A100. For small
networks with 64 images per step this is a loose lower bound, since they spend more time
on kernel launches and memory than on arithmetic.
"""

from typing import NamedTuple

from kdlab.losses.table import LOSSES
from kdlab.settings.config import Config

FLOPS = 0.3 * 156e12


class Size(NamedTuple):
    """Number of training images, their side, and the number of classes."""

    images: int
    side: int
    classes: int


SIZES = {
    "cifar100": Size(50_000, 32, 100),
    "tiny_imagenet": Size(100_000, 64, 200),
    "imagenet2012": Size(1_281_167, 224, 1000),
}

MULTIPLY_ADDS = {
    ("mobilenet_v2", 32): 6.5,
    ("resnet20", 32): 40.8,
    ("resnet32x4", 32): 1083.0,
    ("resnet50", 32): 1298.0,
    ("resnet56", 32): 125.8,
    ("resnet8x4", 32): 177.1,
    ("shufflenet_v1", 32): 38.7,
    ("shufflenet_v2", 32): 44.5,
    ("vgg13", 32): 284.9,
    ("vgg8", 32): 96.2,
    ("wrn_40_1", 32): 83.3,
    ("wrn_40_2", 32): 327.6,
    ("mobilenet_v2_tiny", 64): 215.7,
    ("resnet18", 64): 2221.8,
    ("shufflenet_v2", 64): 177.8,
    ("deit_s", 224): 4598.9,
    ("deit_s_conv", 224): 5917.5,
    ("deit_s_distilled", 224): 4624.1,
    ("deit_ti", 224): 1253.7,
    ("deit_ti_conv", 224): 2429.1,
    ("deit_ti_distilled", 224): 1261.0,
    ("mobilenet_v1", 224): 568.7,
    ("regnety_160", 224): 15911.5,
    ("resnet18_imagenet", 224): 1814.1,
    ("resnet34_imagenet", 224): 3663.8,
    ("resnet50_imagenet", 224): 4089.2,
}
"""Millions of multiply-adds per forward pass by network and side (`models.summary`)."""

ONE_PASS_PER_LOSS = ("dot", "dto_kd", "dynamic_lambda", "min_norm")


def estimate_hours(config: Config) -> float:
    """Returns the hours of one seed of all methods."""
    images, side, _ = SIZES[config.data.dataset]
    student = MULTIPLY_ADDS[config.networks.student, side]
    teacher = (
        0
        if config.networks.teacher is None
        else MULTIPLY_ADDS[config.networks.teacher, side]
    )
    exact = 3 + 2 * len(LOSSES[config.distillation.loss].names)
    passes = [exact if method in ONE_PASS_PER_LOSS else 3 for method in config.methods]
    millions = sum(count * student + teacher for count in passes)
    return 2e6 * millions * images * config.training.epochs / FLOPS / 3600
