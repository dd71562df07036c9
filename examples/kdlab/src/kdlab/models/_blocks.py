"""Layers with PyTorch's conventions, shared by all families.

A student is comparable with published ones only if it is initialised and normalised
like them, so initial values, padding and BatchNorm follow PyTorch rather than Flax.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from kdlab.models._batch_norm import BatchNorm

Initializer = Callable[[jax.Array, Sequence[int], DTypeLike], jax.Array]

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)), as in torch.nn.Linear and Conv2d.
torch_default = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# N(0, 2 / fan_out), as in ResNets.
kaiming_fan_out = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


# N(0, 0.01^2), for the classifiers of VGG and MobileNetV2.
small_normal = nnx.initializers.normal(0.01)


def _torch_bias(fan_in: int) -> Initializer:
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: Sequence[int], dtype: DTypeLike) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


@dataclasses.dataclass(frozen=True)
class Layers:
    """Factory of the layers of one model, with their shared options.

    Attributes:
        rngs: Random streams of the initial values.
        dtype: Dtype of the computation; None: that of inputs and parameters.
        param_dtype: Dtype of the parameters.
        axis_name: Mesh or pmap axis over which BatchNorm averages its statistics.
        batch_norm_group: Number of images that share BatchNorm statistics; None: all.
        max_blocks: Maximum number of blocks in each stage; None: no limit.
        conv_init: Initial kernels of the convolutions.
        linear_init: Initial kernels of the linear layers.
        bias_init: Initial biases of both; None: PyTorch's default.
    """

    rngs: nnx.Rngs
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    batch_norm_group: int | None = None
    max_blocks: int | None = None
    conv_init: Initializer = torch_default
    linear_init: Initializer = torch_default
    bias_init: Initializer | None = None

    def blocks(self, count: int) -> range:
        """Returns the indices of the blocks of a stage."""
        return range(count if self.max_blocks is None else min(count, self.max_blocks))

    def conv(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int = 1,
        *,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = False,
    ) -> nnx.Conv:
        """Makes a square convolution, by default padded to keep the image size."""
        padding = size // 2 if padding is None else padding
        fan_in = size * size * inputs // groups
        return nnx.Conv(
            inputs,
            outputs,
            (size, size),
            strides=stride,
            # Explicit because Flax's SAME pads strided convolutions on one side only.
            padding=((padding, padding), (padding, padding)),
            feature_group_count=groups,
            use_bias=bias,
            kernel_init=self.conv_init,
            bias_init=self.bias_init or _torch_bias(fan_in),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            rngs=self.rngs,
        )

    def linear(self, inputs: int, outputs: int) -> nnx.Linear:
        """Makes a linear layer with bias."""
        return nnx.Linear(
            inputs,
            outputs,
            kernel_init=self.linear_init,
            bias_init=self.bias_init or _torch_bias(inputs),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            rngs=self.rngs,
        )

    def norm(self, channels: int) -> BatchNorm:
        """Makes a BatchNorm; its momentum 0.9 is called 0.1 in PyTorch."""
        return BatchNorm(
            channels,
            momentum=0.9,
            epsilon=1e-5,
            param_dtype=self.param_dtype,
            axis_name=self.axis_name,
            group=self.batch_norm_group,
            rngs=self.rngs,
        )

    def conv_norm(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int = 1,
        *,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = False,
    ) -> "ConvNorm":
        """Makes a convolution with BatchNorm; see :meth:`conv` for the arguments."""
        conv = self.conv(
            inputs, outputs, size, stride, padding=padding, groups=groups, bias=bias
        )
        return ConvNorm(conv, self.norm(outputs))


class ConvNorm(nnx.Module):
    """A convolution and its BatchNorm, without activation."""

    def __init__(self, conv: nnx.Conv, norm: BatchNorm):
        self.conv = conv
        self.norm = norm

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves and normalises ``[b, h, w, d]``."""
        return self.norm(self.conv(x))


def relu_stages(
    stages: Iterable[Iterable[Callable[[jax.Array], jax.Array]]], x: jax.Array
) -> tuple[jax.Array, ...]:
    """Runs stages of units that expect activated inputs and return preactivations.

    Args:
        stages: Units of each stage.
        x: Input of the first unit, before its ReLU, ``[b, h, w, d]``.

    Returns:
        The last map of each stage, before its ReLU.
    """
    ends = []
    for stage in stages:
        for unit in stage:
            x = unit(nnx.relu(x))
        ends.append(x)
    return tuple(ends)


def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
    """Interleaves the channels of the groups so that the next layer mixes them."""
    *image, channels = x.shape
    grouped = x.reshape(*image, groups, channels // groups)
    return jnp.swapaxes(grouped, -1, -2).reshape(x.shape)


def max_pool(x: jax.Array, size: int, stride: int, padding: int = 0) -> jax.Array:
    """Takes maxima over square windows, dropping incomplete ones."""
    pads = ((padding, padding), (padding, padding))
    return nnx.max_pool(x, (size, size), (stride, stride), pads)


def avg_pool(x: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
    """Averages over square windows, counting padding as zeros."""
    sums = jax.lax.reduce_window(
        x,
        0.0,
        jax.lax.add,
        (1, size, size, 1),
        (1, stride, stride, 1),
        ((0, 0), (padding, padding), (padding, padding), (0, 0)),
    )
    return sums / size**2


def global_pool(x: jax.Array) -> jax.Array:
    """Averages ``[b, h, w, d]`` over the image to ``[b, d]``."""
    return jnp.mean(x, axis=(1, 2))


def flatten(x: jax.Array) -> jax.Array:
    """Flattens each example, ``[b, ...]`` to ``[b, d]``."""
    return x.reshape(len(x), -1)
