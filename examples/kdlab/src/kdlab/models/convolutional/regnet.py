"""RegNetY: bottlenecks with grouped convolutions and squeeze-and-excitation."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.models._blocks import (
    Layers,
    global_pool,
    kaiming_fan_out,
    relu_stages,
    small_normal,
)
from kdlab.models._outputs import Model, Outputs


class SqueezeExcitation(nnx.Module):
    """Scales channels by a sigmoid of their means over the image.

    Args:
        width: Number of channels.
        hidden: Width of the layer between the means and the factors.
        layers: Factory of the layers.
    """

    def __init__(self, width: int, hidden: int, layers: Layers):
        self.fc1 = layers.conv(width, hidden, 1, bias=True)
        self.fc2 = layers.conv(hidden, width, 1, bias=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[b, h, w, d]`` to ``[b, h, w, d]``."""
        means = jnp.mean(x, axis=(1, 2), keepdims=True)
        return x * jax.nn.sigmoid(self.fc2(nnx.relu(self.fc1(means))))


class Bottleneck(nnx.Module):
    """Convolutions 1x1, grouped 3x3 and 1x1 of one width, without the last ReLU.

    Channels are scaled before the last convolution. The layer that computes their
    factors has a quarter of the width of the block's *input*. The shortcut is a 1x1
    convolution if the shape changes.

    Args:
        inputs: Number of channels of the input.
        width: Number of channels of all other layers.
        group: Number of channels of a group.
        stride: Stride of the 3x3 convolution.
        layers: Factory of the layers.
    """

    def __init__(
        self, inputs: int, width: int, group: int, stride: int, layers: Layers
    ):
        groups = width // group
        self.units = nnx.List(
            [
                layers.conv_norm(inputs, width, 1),
                layers.conv_norm(width, width, 3, stride, groups=groups),
                layers.conv_norm(width, width, 1),
            ]
        )
        self.se = SqueezeExcitation(width, round(inputs / 4), layers)
        changes = stride != 1 or inputs != width
        self.shortcut = layers.conv_norm(inputs, width, 1, stride) if changes else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the sum before its ReLU."""
        first, second, last = self.units
        branch = nnx.relu(second(nnx.relu(first(x))))
        branch = last(self.se(branch))
        return branch + (x if self.shortcut is None else self.shortcut(x))


class RegNetY(Model):
    """Four stages whose widths follow a quantised line; each stage halves the image.

    Features are the stem and the last block of each stage.

    Args:
        initial: Width at the start of the line.
        slope: Increase of the width per block.
        ratio: Ratio of the widths of successive stages, before rounding.
        depth: Number of blocks.
        group: Number of channels of a group.
        num_classes: Number of classes.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    References:
        Radosavovic et al., `Designing Network Design Spaces
        <https://arxiv.org/abs/2003.13678>`_, CVPR 2020, section 3.3 and table 4.

    Notes:
        Initial values are those of the ResNets here.
    """

    def __init__(
        self,
        *,
        initial: int,
        slope: float,
        ratio: float,
        depth: int,
        group: int,
        num_classes: int,
        image_shape: tuple[int, int, int],
        layers: Layers,
    ):
        layers = dataclasses.replace(
            layers,
            conv_init=kaiming_fan_out,
            linear_init=small_normal,
            bias_init=nnx.initializers.zeros,
        )
        inputs = 32
        self.stem = layers.conv_norm(image_shape[-1], inputs, 3, 2)
        self.stages = nnx.List([])
        for width, count in stage_widths(initial, slope, ratio, depth, group).items():
            stage = nnx.List([])
            for i in layers.blocks(count):
                stride = 2 if i == 0 else 1
                stage.append(
                    Bottleneck(inputs, width, min(group, width), stride, layers)
                )
                inputs = width
            self.stages.append(stage)
        self.classifier = layers.linear(inputs, num_classes)

    def __call__(self, x: jax.Array) -> Outputs:
        """Runs the network."""
        stem = self.stem(x)
        preactivations = (stem, *relu_stages(self.stages, stem))
        features = tuple(nnx.relu(preactivation) for preactivation in preactivations)
        pooled = global_pool(features[-1])
        return Outputs(self.classifier(pooled), features, preactivations, pooled)


def stage_widths(
    initial: int, slope: float, ratio: float, depth: int, group: int
) -> dict[int, int]:
    r"""Computes the width of each stage and the number of its blocks.

    Block j has the width :math:`w_0 m^{r_j}`, with :math:`r_j` the integer for which
    this is nearest to :math:`w_0 + a j` in logarithm. Widths are rounded to multiples
    of 8, then of the group.

    Args:
        initial: :math:`w_0`.
        slope: a.
        ratio: m.
        depth: Number of blocks.
        group: Number of channels of a group.

    Returns:
        Numbers of blocks by width.

    Examples:
        >>> stage_widths(200, 106.23, 2.48, 18, 112)
        {224: 2, 448: 4, 1232: 11, 3024: 1}
    """
    counts: dict[int, int] = {}
    for j in range(depth):
        power = round(math.log((initial + slope * j) / initial) / math.log(ratio))
        width = 8 * round(initial * ratio**power / 8)
        unit = min(group, width)
        width = unit * round(width / unit)
        counts[width] = counts.get(width, 0) + 1
    return counts
