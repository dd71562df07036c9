"""Wide ResNets, with pre-activation blocks."""

import dataclasses

import jax
from flax import nnx

from kdlab.models._blocks import Layers, global_pool, kaiming_fan_out
from kdlab.models._outputs import Model, Outputs


class PreactBlock(nnx.Module):
    """A pre-activation block: twice BatchNorm, ReLU and 3x3 convolution.

    If the width changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, layers: Layers):
        self.norm1 = layers.norm(inputs)
        self.conv1 = layers.conv(inputs, outputs, 3, stride)
        self.norm2 = layers.norm(outputs)
        self.conv2 = layers.conv(outputs, outputs, 3)
        changes = inputs != outputs
        self.shortcut = layers.conv(inputs, outputs, 1, stride) if changes else None

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the normalised input, before its ReLU, and the output."""
        normalised = self.norm1(x)
        active = nnx.relu(normalised)
        branch = self.conv2(nnx.relu(self.norm2(self.conv1(active))))
        residual = x if self.shortcut is None else self.shortcut(active)
        return normalised, residual + branch


class WideResNet(Model):
    """Three stages of pre-activation blocks.

    Features are the stem and the output of each stage, before any ReLU. Their
    preactivations are the outputs of the next BatchNorm.

    Args:
        depth: Number of layers, 6 n + 4.
        widen: Factor on the widths 16, 32 and 64.
        num_classes: Number of classes.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    Raises:
        ValueError: If the depth is not 6 n + 4.

    References:
        Zagoruyko and Komodakis, `Wide Residual Networks
        <https://arxiv.org/abs/1605.07146>`_, BMVC 2016.

    Notes:
        mdistiller (a08d46f) evaluates the BatchNorms of the preactivations twice per
        forward pass and so updates their statistics twice; here they are updated once.
        Its preactivation of the stem is the stem itself.
    """

    def __init__(
        self,
        depth: int,
        widen: int,
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
        layers: Layers,
    ):
        count, rest = divmod(depth - 4, 6)
        if count < 1 or rest:
            raise ValueError(f"depth is {depth}; expected 6 n + 4, such as 16")
        layers = dataclasses.replace(
            layers, conv_init=kaiming_fan_out, bias_init=nnx.initializers.zeros
        )
        self.stem = layers.conv(image_shape[-1], 16, 3)
        self.stages = nnx.List([])
        inputs = 16
        for outputs, stride in ((16 * widen, 1), (32 * widen, 2), (64 * widen, 2)):
            stage = nnx.List([PreactBlock(inputs, outputs, stride, layers=layers)])
            for _ in layers.blocks(count)[1:]:
                stage.append(PreactBlock(outputs, outputs, 1, layers=layers))
            self.stages.append(stage)
            inputs = outputs
        self.norm = layers.norm(inputs)
        self.classifier = layers.linear(inputs, num_classes)

    def __call__(self, x: jax.Array) -> Outputs:
        """Runs the network."""
        x = self.stem(x)
        features, preactivations = [x], []
        for stage in self.stages:
            first, *others = stage
            normalised, x = first(x)
            preactivations.append(normalised)
            for block in others:
                _, x = block(x)
            features.append(x)
        preactivations.append(self.norm(x))
        pooled = global_pool(nnx.relu(preactivations[-1]))
        return Outputs(
            self.classifier(pooled), tuple(features), tuple(preactivations), pooled
        )
