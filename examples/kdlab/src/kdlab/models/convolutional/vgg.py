"""VGG with BatchNorm and one linear layer, for small images."""

import dataclasses

import jax
from flax import nnx

from kdlab.models._blocks import (
    Layers,
    global_pool,
    kaiming_fan_out,
    max_pool,
    small_normal,
)
from kdlab.models._outputs import Model, Outputs


class VGG(Model):
    """Five groups of 3x3 convolutions; features are their outputs, before pooling.

    Images of 64 pixels and more are halved four times, smaller ones three times.

    Args:
        blocks: Number of convolutions in each group.
        num_classes: Number of classes.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    Raises:
        ValueError: If the image is too small to be halved three times.

    References:
        Simonyan and Zisserman, `Very Deep Convolutional Networks for Large-Scale
        Image Recognition <https://arxiv.org/abs/1409.1556>`_, ICLR 2015.
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int, int],
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
        layers: Layers,
    ):
        height, width, inputs = image_shape
        if min(height, width) < 8:
            raise ValueError(
                f"image_shape {image_shape} is too small to be halved three times; "
                "use at least 8 pixels"
            )
        layers = dataclasses.replace(
            layers,
            conv_init=kaiming_fan_out,
            linear_init=small_normal,
            bias_init=nnx.initializers.zeros,
        )
        self.stages = nnx.List([])
        for count, outputs in zip(blocks, (64, 128, 256, 512, 512), strict=True):
            stage = nnx.List([])
            for _ in layers.blocks(count):
                stage.append(layers.conv_norm(inputs, outputs, 3, bias=True))
                inputs = outputs
            self.stages.append(stage)
        self.halvings = 4 if height >= 64 else 3
        self.classifier = layers.linear(inputs, num_classes)

    def __call__(self, x: jax.Array) -> Outputs:
        """Runs the network."""
        features, preactivations = [], []
        for i, stage in enumerate(self.stages):
            *hidden, last = stage
            for unit in hidden:
                x = nnx.relu(unit(x))
            preactivations.append(last(x))
            x = nnx.relu(preactivations[-1])
            features.append(x)
            if i < self.halvings:
                x = max_pool(x, 2, 2)
        pooled = global_pool(x)
        return Outputs(
            self.classifier(pooled), tuple(features), tuple(preactivations), pooled
        )
