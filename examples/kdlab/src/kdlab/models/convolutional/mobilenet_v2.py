"""MobileNetV2 of half width for CIFAR, and of full width for Tiny-ImageNet."""

import dataclasses
from collections.abc import Callable

import jax
from flax import nnx

from kdlab.models._blocks import Layers, global_pool, kaiming_fan_out, small_normal
from kdlab.models._outputs import Model, Outputs

Activation = Callable[[jax.Array], jax.Array]


class InvertedResidual(nnx.Module):
    """An inverted residual block: expansion, depthwise filter, linear projection."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        expansion: int,
        *,
        bias: bool,
        activation: Activation,
        layers: Layers,
    ):
        wide = inputs * expansion
        self.units = nnx.List(
            [
                layers.conv_norm(inputs, wide, 1, bias=bias),
                layers.conv_norm(wide, wide, 3, stride, groups=wide, bias=bias),
                layers.conv_norm(wide, outputs, 1, bias=bias),
            ]
        )
        self.activation = activation
        self.shortcut = stride == 1 and inputs == outputs

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[b, h, w, d]`` to the linear bottleneck."""
        expand, depthwise, project = self.units
        branch = self.activation(depthwise(self.activation(expand(x))))
        branch = project(branch)
        return x + branch if self.shortcut else branch


def _stages(
    inputs: int,
    widths: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    bias: bool,
    activation: Activation,
    layers: Layers,
) -> nnx.List:
    """Makes the seven stages, all of which except the first expand their channels."""
    stages = nnx.List([])
    counts = (1, 2, 3, 4, 3, 3, 1)
    for i, (count, outputs) in enumerate(zip(counts, widths, strict=True)):
        stage = nnx.List([])
        for j in layers.blocks(count):
            block = InvertedResidual(
                inputs,
                outputs,
                strides[i] if j == 0 else 1,
                1 if i == 0 else 6,
                bias=bias,
                activation=activation,
                layers=layers,
            )
            stage.append(block)
            inputs = outputs
        stages.append(stage)
    return stages


class MobileNetV2(Model):
    """Half-width MobileNetV2 with ReLU, the CIFAR student.

    Features are the activated stem and the linear bottlenecks that end stages 2, 3,
    5 and 7. Those have no activation, so they are their own preactivations.

    Args:
        num_classes: Number of classes.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    References:
        Sandler et al., `MobileNetV2: Inverted Residuals and Linear Bottlenecks
        <https://arxiv.org/abs/1801.04381>`_, CVPR 2018.

    Notes:
        As in RepDistiller and mdistiller (a08d46f): ReLU instead of ReLU6, a stride
        of 2 in the stem, an expansion convolution even without expansion, and a
        full-width head. They return no preactivations.
    """

    def __init__(
        self,
        *,
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
        self.stem = layers.conv_norm(image_shape[-1], 16, 3, 2)
        self.stages = _stages(
            16,
            (8, 12, 16, 32, 48, 80, 160),
            (1, 1, 2, 2, 1, 2, 1),
            bias=False,
            activation=nnx.relu,
            layers=layers,
        )
        self.head = layers.conv_norm(160, 1280, 1)
        self.classifier = layers.linear(1280, num_classes)

    def __call__(self, x: jax.Array) -> Outputs:
        """Runs the network."""
        stem = self.stem(x)
        x = nnx.relu(stem)
        features, preactivations = [x], [stem]
        for i, stage in enumerate(self.stages):
            for block in stage:
                x = block(x)
            if i in (1, 2, 4, 6):
                features.append(x)
                preactivations.append(x)
        pooled = global_pool(nnx.relu(self.head(x)))
        return Outputs(
            self.classifier(pooled), tuple(features), tuple(preactivations), pooled
        )


class TinyMobileNetV2(Model):
    """Full-width MobileNetV2 with ReLU6, the Tiny-ImageNet student.

    Features are the stem, the linear bottlenecks that end stages 2, 3 and 4 (their
    own preactivations), and the 1280-channel head.

    Args:
        num_classes: Number of classes.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    Notes:
        As in mdistiller (a08d46f): convolutions have biases, the 1x1 stem pads its
        input by 1 (64 pixels become 66), and the classifier is a 1x1 convolution.
        There ``pooled`` keeps its image axes; here it is ``[b, 1280]``.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
        layers: Layers,
    ):
        self.stem = layers.conv_norm(image_shape[-1], 32, 1, padding=1, bias=True)
        self.stages = _stages(
            32,
            (16, 24, 32, 64, 96, 160, 320),
            (1, 2, 2, 2, 1, 1, 1),
            bias=True,
            activation=nnx.relu6,
            layers=layers,
        )
        self.head = layers.conv_norm(320, 1280, 1, bias=True)
        self.classifier = layers.conv(1280, num_classes, 1, bias=True)

    def __call__(self, x: jax.Array) -> Outputs:
        """Runs the network."""
        preactivations = [self.stem(x)]
        x = nnx.relu6(preactivations[0])
        features = [x]
        for i, stage in enumerate(self.stages):
            for block in stage:
                x = block(x)
            if i in (1, 2, 3):
                features.append(x)
                preactivations.append(x)
        preactivations.append(self.head(x))
        features.append(nnx.relu6(preactivations[-1]))
        pooled = global_pool(features[-1])
        logits = self.classifier(pooled[:, None, None, :])[:, 0, 0, :]
        return Outputs(logits, tuple(features), tuple(preactivations), pooled)
