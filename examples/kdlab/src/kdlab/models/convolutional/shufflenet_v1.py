"""ShuffleNetV1 with three groups, for small images."""

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.models._blocks import (
    Layers,
    avg_pool,
    channel_shuffle,
    global_pool,
    relu_stages,
)
from kdlab.models._outputs import Model, Outputs

GROUPS = 3
STEM = 24


class ShuffleUnit(nnx.Module):
    """Grouped 1x1, shuffle, depthwise 3x3 and grouped 1x1, without the last ReLU.

    Units of stride 2 concatenate the pooled input and the branch; others add them.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, layers: Layers):
        branch = outputs - inputs if stride == 2 else outputs
        mid = branch // 4
        # The stem is too narrow for groups.
        self.groups = 1 if inputs == STEM else GROUPS
        self.stride = stride
        self.units = nnx.List(
            [
                layers.conv_norm(inputs, mid, 1, groups=self.groups),
                layers.conv_norm(mid, mid, 3, stride, groups=mid),
                layers.conv_norm(mid, branch, 1, groups=GROUPS),
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the map before its ReLU."""
        reduce, depthwise, expand = self.units
        branch = channel_shuffle(nnx.relu(reduce(x)), self.groups)
        branch = expand(nnx.relu(depthwise(branch)))
        if self.stride == 1:
            return branch + x
        pooled = avg_pool(x, 3, 2, padding=1)
        return jnp.concatenate([branch, pooled], axis=-1)


class ShuffleNetV1(Model):
    """A stem and three stages of shuffle units; features are their outputs.

    Args:
        num_classes: Number of classes.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    References:
        Zhang et al., `ShuffleNet: An Extremely Efficient Convolutional Neural Network
        for Mobile Devices <https://arxiv.org/abs/1707.01083>`_, CVPR 2018.

    Notes:
        As in RepDistiller and mdistiller (a08d46f): a 1x1 stem without pooling, and a
        ReLU after every addition and concatenation.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
        layers: Layers,
    ):
        self.stem = layers.conv_norm(image_shape[-1], STEM, 1)
        self.stages = nnx.List([])
        inputs = STEM
        for count, outputs in zip((4, 8, 4), (240, 480, 960), strict=True):
            stage = nnx.List([ShuffleUnit(inputs, outputs, 2, layers=layers)])
            for _ in layers.blocks(count)[1:]:
                stage.append(ShuffleUnit(outputs, outputs, 1, layers=layers))
            self.stages.append(stage)
            inputs = outputs
        self.classifier = layers.linear(inputs, num_classes)

    def __call__(self, x: jax.Array) -> Outputs:
        """Runs the network."""
        stem = self.stem(x)
        preactivations = (stem, *relu_stages(self.stages, stem))
        features = tuple(nnx.relu(preactivation) for preactivation in preactivations)
        pooled = global_pool(features[-1])
        return Outputs(self.classifier(pooled), features, preactivations, pooled)
