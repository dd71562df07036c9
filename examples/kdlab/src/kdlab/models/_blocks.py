"""Layers with PyTorch's conventions, shared by all families.

A student is comparable with published ones only if it is initialised and normalised
like them, so initial values, padding and BatchNorm follow PyTorch rather than Flax.
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


def widen(dtype: DTypeLike) -> jnp.dtype:
    """Returns the dtype of sums: float32, or a wider dtype itself.

    Examples:
        >>> widen(jnp.bfloat16), widen(jnp.float64)
        (dtype('float32'), dtype('float64'))
    """
    dtype = jnp.dtype(dtype)
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


class Statistic(nnx.BatchStat):
    """A running statistic that is replaced without comparing placements.

    Flax's own assignment compares them, which during tracing takes a time quadratic in
    the size of the program: half of the tracing time of a deep network.
    """

    def __setitem__(self, key: Any, value: Any) -> None:
        """Replaces the statistic, or a part of it."""
        if key is ...:
            self.set_value(value)
        else:
            super().__setitem__(key, value)


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation in float32 or wider, whatever the dtype of the computation.

    Flax rounds the running statistics to that dtype; here only the result is rounded.
    They have the dtype of the parameters if that is wider than float32.

    Args:
        *args: Arguments of ``nnx.BatchNorm``.
        group: Number of adjacent images that share their statistics, as a replica with
            that batch size would compute them, on any number of devices. The running
            statistics are updated with the mean over groups. None: the whole batch.
        **kwargs: Keyword arguments of ``nnx.BatchNorm``.

    Notes:
        Flax's running variance is biased, PyTorch's is unbiased: they differ by the
        factor n / (n - 1), n = b h w.
    """

    def __init__(self, *args: Any, group: int | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        wide = widen(self.param_dtype)
        own: list[nnx.BatchStat] = [
            Statistic(x[...].astype(wide)) for x in (self.mean, self.var)
        ]
        self.mean, self.var = own
        self.group = group

    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Normalises ``[b, h, w, d]`` over all axes except the last.

        Raises:
            ValueError: If the groups do not divide the batch.
        """
        wide = x.astype(widen(x.dtype))
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
                f"{len(x)}: choose a multiple of the group as batch size, or a divisor "
                "of the batch size as group."
            )
        groups = x.reshape(-1, size, *x.shape[1:])
        axes = tuple(range(1, groups.ndim - 1))
        mean, square = jnp.mean(groups, axes), jnp.mean(jnp.square(groups), axes)
        # Rounding may make it negative.
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
