"""Small networks for digits, without normalisation."""

import math

import jax
from flax import nnx

from kdlab.models._blocks import Layers, flatten, max_pool
from kdlab.models._outputs import Model, Outputs


class CNN(Model):
    """Convolutions with ReLU and max-pooling, dense layers, and a classifier.

    Features are the maps before each pooling; ``pooled`` is the input of the
    classifier: the last dense layer, or the flattened map if there is none.

    Args:
        channels: Width of each 3x3 convolution.
        dense: Width of each dense layer between the maps and the classifier.
        num_classes: Number of classes.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    Raises:
        ValueError: If the image is too small to be halved once per convolution.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        dense: tuple[int, ...] = (),
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
        layers: Layers,
    ):
        height, width, inputs = image_shape
        if min(height, width) < 2 ** len(channels):
            raise ValueError(
                f"image_shape {image_shape} is too small to be halved "
                f"{len(channels)} times; use at least {2 ** len(channels)} pixels"
            )
        self.convs = nnx.List([])
        for outputs in channels:
            self.convs.append(layers.conv(inputs, outputs, 3, bias=True))
            height, width, inputs = height // 2, width // 2, outputs
        inputs *= height * width
        self.dense = nnx.List([])
        for outputs in dense:
            self.dense.append(layers.linear(inputs, outputs))
            inputs = outputs
        self.classifier = layers.linear(inputs, num_classes)

    def __call__(self, x: jax.Array) -> Outputs:
        """Runs the network."""
        features, preactivations = [], []
        for conv in self.convs:
            preactivations.append(conv(x))
            features.append(nnx.relu(preactivations[-1]))
            x = max_pool(features[-1], 2, 2)
        x = flatten(x)
        for dense in self.dense:
            x = nnx.relu(dense(x))
        return Outputs(self.classifier(x), tuple(features), tuple(preactivations), x)


class MLP(Model):
    """Dense layers with ReLU; features are the hidden layers as maps of one pixel.

    Args:
        width: Width of the hidden layers.
        depth: Number of hidden layers, at least 1.
        num_classes: Number of classes.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    Raises:
        ValueError: If there is no hidden layer.
    """

    def __init__(
        self,
        width: int = 32,
        depth: int = 2,
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
        layers: Layers,
    ):
        if depth < 1:
            raise ValueError(f"depth is {depth}; give at least 1 hidden layer")
        inputs = [math.prod(image_shape)] + [width] * (depth - 1)
        self.hidden = nnx.List([layers.linear(size, width) for size in inputs])
        self.classifier = layers.linear(width, num_classes)

    def __call__(self, x: jax.Array) -> Outputs:
        """Runs the network."""
        features, preactivations = [], []
        x = flatten(x)
        for hidden in self.hidden:
            preactivations.append(hidden(x)[:, None, None, :])
            features.append(nnx.relu(preactivations[-1]))
            x = flatten(features[-1])
        return Outputs(self.classifier(x), tuple(features), tuple(preactivations), x)
