"""ShuffleNetV2 of width 1, for small images."""

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.models._blocks import Layers, channel_shuffle, global_pool, relu_stages
from kdlab.models._outputs import Model, Outputs

STEM = 24


class SplitUnit(nnx.Module):
    """A unit that filters half of the channels, passes the others, and shuffles."""

    def __init__(self, channels: int, *, layers: Layers):
        half = channels // 2
        self.units = nnx.List(
            [
                layers.conv_norm(half, half, 1),
                layers.conv_norm(half, half, 3, groups=half),
                layers.conv_norm(half, half, 1),
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the map before its ReLU, which changes nothing in the first half."""
        reduce, depthwise, expand = self.units
        kept, branch = jnp.split(x, 2, axis=-1)
        branch = expand(depthwise(nnx.relu(reduce(branch))))
        return channel_shuffle(jnp.concatenate([kept, branch], axis=-1), 2)


class DownUnit(nnx.Module):
    """A unit of two parallel branches of stride 2 and a shuffle."""

    def __init__(self, inputs: int, outputs: int, *, layers: Layers):
        half = outputs // 2
        self.left = nnx.List(
            [
                layers.conv_norm(inputs, inputs, 3, 2, groups=inputs),
                layers.conv_norm(inputs, half, 1),
            ]
        )
        self.right = nnx.List(
            [
                layers.conv_norm(inputs, half, 1),
                layers.conv_norm(half, half, 3, 2, groups=half),
                layers.conv_norm(half, half, 1),
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the map before its ReLU."""
        depthwise, project = self.left
        left = project(depthwise(x))
        reduce, depthwise, expand = self.right
        right = expand(depthwise(nnx.relu(reduce(x))))
        return channel_shuffle(jnp.concatenate([left, right], axis=-1), 2)


class ShuffleNetV2(Model):
    """A stem and three stages, whose outputs are the features, and a head.

    Args:
        num_classes: Number of classes.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    References:
        Ma et al., `ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture
        Design <https://arxiv.org/abs/1807.11164>`_, ECCV 2018.

    Notes:
        As in RepDistiller and mdistiller (a08d46f): a 1x1 stem without pooling. They
        average over 4x4 windows, which fails on 64-pixel images; here the average is
        over the whole image. Their preactivations are not shuffled and so have their
        channels in another order than the features; here the order is the same.
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
        for count, outputs in zip((4, 8, 4), (116, 232, 464), strict=True):
            down = DownUnit(inputs, outputs, layers=layers)
            rest = layers.blocks(count)[1:]
            units = [SplitUnit(outputs, layers=layers) for _ in rest]
            self.stages.append(nnx.List([down, *units]))
            inputs = outputs
        self.head = layers.conv_norm(inputs, 1024, 1)
        self.classifier = layers.linear(1024, num_classes)

    def __call__(self, x: jax.Array) -> Outputs:
        """Runs the network."""
        stem = self.stem(x)
        preactivations = (stem, *relu_stages(self.stages, stem))
        features = tuple(nnx.relu(preactivation) for preactivation in preactivations)
        pooled = global_pool(nnx.relu(self.head(features[-1])))
        return Outputs(self.classifier(pooled), features, preactivations, pooled)
