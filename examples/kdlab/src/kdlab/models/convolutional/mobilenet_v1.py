"""MobileNetV1, for ImageNet."""

import jax
from flax import nnx

from kdlab.models._blocks import Layers, global_pool, relu_stages
from kdlab.models._outputs import Model, Outputs

# (width, first stride, number) of the units; each stage ends in a feature.
STAGES = (
    ((64, 1, 1), (128, 2, 2)),
    ((256, 2, 2),),
    ((512, 2, 6),),
    ((1024, 2, 2),),
)


class Separable(nnx.Module):
    """A depthwise 3x3 and a pointwise convolution, without the last ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, layers: Layers):
        self.depthwise = layers.conv_norm(inputs, inputs, 3, stride, groups=inputs)
        self.pointwise = layers.conv_norm(inputs, outputs, 1)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the map before its ReLU."""
        return self.pointwise(nnx.relu(self.depthwise(x)))


class MobileNetV1(Model):
    """Thirteen depthwise separable units; features are the stem and four stages.

    Args:
        num_classes: Number of classes.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    References:
        Howard et al., `MobileNets: Efficient Convolutional Neural Networks for Mobile
        Vision Applications <https://arxiv.org/abs/1704.04861>`_, 2017, table 1.

    Notes:
        mdistiller (a08d46f) returns no stem, so that losses on all features but the
        first miss the 128-channel stage. Here, as in every family, index 0 is the stem,
        and the four stages that follow are aligned with those of a ResNet.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
        layers: Layers,
    ):
        self.stem = layers.conv_norm(image_shape[-1], 32, 3, 2)
        self.stages = nnx.List([])
        inputs = 32
        for units in STAGES:
            stage = nnx.List([])
            for outputs, stride, count in units:
                for j in layers.blocks(count):
                    unit = Separable(
                        inputs, outputs, stride if j == 0 else 1, layers=layers
                    )
                    stage.append(unit)
                    inputs = outputs
            self.stages.append(stage)
        self.classifier = layers.linear(inputs, num_classes)

    def __call__(self, x: jax.Array) -> Outputs:
        """Runs the network."""
        stem = self.stem(x)
        preactivations = (stem, *relu_stages(self.stages, stem))
        features = tuple(nnx.relu(preactivation) for preactivation in preactivations)
        pooled = global_pool(features[-1])
        return Outputs(self.classifier(pooled), features, preactivations, pooled)
