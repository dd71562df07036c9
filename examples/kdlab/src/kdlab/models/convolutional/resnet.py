"""ResNets with post-activation blocks, for small images and for ImageNet."""

import dataclasses

import jax
from flax import nnx

from kdlab.models._blocks import (
    Layers,
    global_pool,
    kaiming_fan_out,
    max_pool,
    relu_stages,
)
from kdlab.models._outputs import Model, Outputs


class Residual(nnx.Module):
    """A residual block (two 3x3, or 1x1, 3x3 and 1x1) without the last ReLU.

    The shortcut is a 1x1 convolution if the shape changes (option B). The stride of a
    bottleneck is in its 3x3 convolution.
    """

    def __init__(
        self, inputs: int, width: int, stride: int, *, bottleneck: bool, layers: Layers
    ):
        outputs = 4 * width if bottleneck else width
        if bottleneck:
            units = [
                layers.conv_norm(inputs, width, 1),
                layers.conv_norm(width, width, 3, stride),
                layers.conv_norm(width, outputs, 1),
            ]
        else:
            units = [
                layers.conv_norm(inputs, width, 3, stride),
                layers.conv_norm(width, outputs, 3),
            ]
        self.units = nnx.List(units)
        changes = stride != 1 or inputs != outputs
        self.shortcut = (
            layers.conv_norm(inputs, outputs, 1, stride) if changes else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the sum before its ReLU."""
        *hidden, last = self.units
        branch = x
        for unit in hidden:
            branch = nnx.relu(unit(branch))
        return last(branch) + (x if self.shortcut is None else self.shortcut(x))


class ResNet(Model):
    """Stages of residual blocks; every stage after the first halves the image.

    Features are the stem (before the max-pool, if there is one) and the last block
    of each stage.

    Args:
        blocks: Number of blocks of each stage.
        widths: Width of each stage; the output of a bottleneck is four times as wide.
        stem: Width of the first convolution.
        bottleneck: Whether blocks are bottlenecks.
        imagenet_stem: Whether the stem is 7x7 with stride 2 and max-pool, for
            images of 224 pixels; otherwise 3x3.
        num_classes: Number of classes.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    References:
        He et al., `Deep Residual Learning for Image Recognition
        <https://arxiv.org/abs/1512.03385>`_, CVPR 2016.

    Notes:
        The preactivations of mdistiller's CIFAR ResNets (a08d46f) hold the activated
        stem; here, as in its ImageNet ResNets, they hold the stem before its ReLU.
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        widths: tuple[int, ...] = (64, 128, 256, 512),
        *,
        stem: int = 64,
        bottleneck: bool = False,
        imagenet_stem: bool = False,
        num_classes: int,
        image_shape: tuple[int, int, int],
        layers: Layers,
    ):
        layers = dataclasses.replace(layers, conv_init=kaiming_fan_out)
        size, stride = (7, 2) if imagenet_stem else (3, 1)
        self.imagenet_stem = imagenet_stem
        self.stem = layers.conv_norm(image_shape[-1], stem, size, stride)
        self.stages = nnx.List([])
        inputs = stem
        for i, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            stage = nnx.List([])
            for j in layers.blocks(count):
                stride = 2 if i > 0 and j == 0 else 1
                block = Residual(
                    inputs, width, stride, bottleneck=bottleneck, layers=layers
                )
                stage.append(block)
                inputs = 4 * width if bottleneck else width
            self.stages.append(stage)
        self.classifier = layers.linear(inputs, num_classes)

    def __call__(self, x: jax.Array) -> Outputs:
        """Runs the network."""
        stem = self.stem(x)
        # ReLU and max commute, so pooling may come first.
        x = max_pool(stem, 3, 2, padding=1) if self.imagenet_stem else stem
        preactivations = (stem, *relu_stages(self.stages, x))
        features = tuple(nnx.relu(preactivation) for preactivation in preactivations)
        pooled = global_pool(features[-1])
        return Outputs(self.classifier(pooled), features, preactivations, pooled)


def cifar_resnet(
    depth: int,
    *,
    stem: int = 16,
    width: int = 16,
    num_classes: int,
    image_shape: tuple[int, int, int],
    layers: Layers,
) -> ResNet:
    """Makes the three-stage ResNet for 32-pixel images.

    Args:
        depth: Number of layers, 6 n + 2.
        stem: Width of the first convolution.
        width: Width of the first stage.
        num_classes: Number of classes.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    Returns:
        The network.

    Raises:
        ValueError: If the depth is not 6 n + 2.
    """
    blocks, rest = divmod(depth - 2, 6)
    if blocks < 1 or rest:
        raise ValueError(f"depth is {depth}; expected 6 n + 2, such as 20")
    return ResNet(
        (blocks,) * 3,
        (width, 2 * width, 4 * width),
        stem=stem,
        num_classes=num_classes,
        image_shape=image_shape,
        layers=layers,
    )
