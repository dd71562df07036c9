"""Layers with PyTorch's conventions, shared by all families.

A student is only comparable with published ones if it starts and normalises as they
do, so initial values, padding and BatchNorm follow PyTorch rather than Flax.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

Initializer = Callable[[jax.Array, Sequence[int], DTypeLike], jax.Array]

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what torch.nn.Linear and Conv2d start from.
torch_default = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# N(0, 2 / fan_out), the ResNet start.
kaiming_fan_out = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


# N(0, 0.01^2), for the classifiers of VGG and MobileNetV2.
small_normal = nnx.initializers.normal(0.01)


def _torch_bias(fan_in: int) -> Initializer:
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: Sequence[int], dtype: DTypeLike) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Statistic(nnx.BatchStat):
    """A running statistic that is replaced as a whole.

    Flax's own assignment compares placements, which costs a time quadratic in the size
    of the program while that is traced: half of the trace of a deep network.
    """

    def __setitem__(self, key: Any, value: Any) -> None:
        """Replaces it, or a part of it."""
        if key is ...:
            self.set_value(value)
        else:
            super().__setitem__(key, value)


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation in float32 whatever the compute type.

    Flax rounds the running statistics to the compute type; here only the result is.

    Args:
        *args: As those of Flax.
        group: Images, next to each other in the batch, that share their statistics:
            what a replica of so many would compute, on any number of devices. The
            running statistics move to the mean over the groups. None: the whole batch.
        **kwargs: As those of Flax.

    Notes:
        Flax's running variance is the biased one, PyTorch's the unbiased one: they
        differ by the factor n / (n - 1), n = b h w.
    """

    def __init__(self, *args: Any, group: int | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        own: list[nnx.BatchStat] = [Statistic(x[...]) for x in (self.mean, self.var)]
        self.mean, self.var = own
        self.group = group

    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Normalises ``[b, h, w, d]`` over all axes but the last.

        Raises:
            ValueError: If the groups do not divide the batch.
        """
        wide = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
        trained = not (
            self.use_running_average
            if use_running_average is None
            else use_running_average
        )
        if self.group is not None and trained:
            return self._by_group(wide, self.group).astype(x.dtype)
        return super().__call__(wide, use_running_average, mask=mask).astype(x.dtype)

    def _by_group(self, x: jax.Array, size: int) -> jax.Array:
        if len(x) % size:
            raise ValueError(
                f"BatchNorm in groups of {size} images cannot divide a batch of "
                f"{len(x)}: choose a batch size that is a multiple of it, or a divisor "
                "for the group."
            )
        groups = x.reshape(-1, size, *x.shape[1:])
        axes = tuple(range(1, groups.ndim - 1))
        mean, square = jnp.mean(groups, axes), jnp.mean(jnp.square(groups), axes)
        # Rounding may take it below 0.
        var = jnp.maximum(square - jnp.square(mean), 0)
        for running, seen in ((self.mean, mean), (self.var, var)):
            moved = self.momentum * running[...]
            moved += (1 - self.momentum) * jnp.mean(seen, 0)
            running[...] = jax.lax.stop_gradient(moved)
        shape = len(groups), *[1] * (x.ndim - 1), x.shape[-1]
        factor = jax.lax.rsqrt(var + self.epsilon).reshape(shape)
        normal = (groups - mean.reshape(shape)) * factor
        if self.scale is not None:
            normal *= self.scale[...]
        if self.bias is not None:
            normal += self.bias[...]
        return normal.reshape(x.shape)


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes the layers of one model; carries what all of them share.

    Attributes:
        rngs: Source of the initial values.
        dtype: Type of the computation; None takes that of inputs and parameters.
        param_dtype: Type in which parameters are kept.
        axis_name: Mesh or pmap axis over which BatchNorm averages its statistics.
        batch_norm_group: Images that share BatchNorm's statistics; None: all.
        max_blocks: Greatest number of blocks in a stage; None: as the network has them.
        conv_init: Initial kernels of the convolutions.
        linear_init: Initial kernels of the linear layers.
        bias_init: Initial biases of both; None is the range PyTorch takes.
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
        """Numbers the blocks of a stage, from 0."""
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
        """Makes a square convolution; by default padded to keep the size."""
        padding = size // 2 if padding is None else padding
        fan_in = size * size * inputs // groups
        return nnx.Conv(
            inputs,
            outputs,
            (size, size),
            strides=stride,
            # Explicit, as Flax's SAME pads a strided convolution on the right only.
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
        """Makes a BatchNorm; 0.9 is what PyTorch calls momentum 0.1."""
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
        """Makes a convolution with BatchNorm; arguments as :meth:`conv`."""
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
    """Runs stages of units that expect an activated input and do not activate.

    Args:
        stages: Units of each stage.
        x: What the first unit sees, before its ReLU, ``[b, h, w, d]``.

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
    """Interleaves the channels of the groups, so that the next layer mixes them."""
    *image, channels = x.shape
    grouped = x.reshape(*image, groups, channels // groups)
    return jnp.swapaxes(grouped, -1, -2).reshape(x.shape)


def max_pool(x: jax.Array, size: int, stride: int, padding: int = 0) -> jax.Array:
    """Takes maxima over square windows; what does not fill a window is dropped."""
    pads = ((padding, padding), (padding, padding))
    return nnx.max_pool(x, (size, size), (stride, stride), pads)


def avg_pool(x: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
    """Averages over square windows; padding counts as zeros."""
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
    """Lays out each example as one row, ``[b, ...]`` to ``[b, d]``."""
    return x.reshape(len(x), -1)
