"""Layers with PyTorch's conventions, shared by all families.

A student is only comparable with published ones if it starts and normalises as they
do, so initial values, padding and BatchNorm follow PyTorch rather than Flax.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

Initializer = Callable[[jax.Array, Sequence[int], DTypeLike], jax.Array]

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what torch.nn.Linear and Conv2d start from.
torch_default = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# N(0, 2 / fan_out), the ResNet start.
kaiming_fan_out = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


def symmetric_uniform(bound: float) -> Initializer:
    """Initialises with U(-bound, bound)."""

    def init(key: jax.Array, shape: Sequence[int], dtype: DTypeLike) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation in float32 whatever the compute type.

    Flax rounds the running statistics to the compute type; here only the result is.

    Notes:
        Flax's running variance is the biased one, PyTorch's the unbiased one: they
        differ by the factor n / (n - 1), n = b h w.
    """

    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Normalises ``[b, h, w, d]`` over all axes but the last."""
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return super().__call__(wide, use_running_average, mask=mask).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes the layers of one model; carries what all of them share.

    Attributes:
        rngs: Source of the initial values.
        dtype: Type of the computation; None takes that of inputs and parameters.
        param_dtype: Type in which parameters are kept.
        axis_name: Mesh or pmap axis over which BatchNorm averages its statistics.
        conv_init: Initial kernels of the convolutions.
        linear_init: Initial kernels of the linear layers.
    """

    rngs: nnx.Rngs
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    conv_init: Initializer = torch_default
    linear_init: Initializer = torch_default

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
        bound = 1 / math.sqrt(size * size * inputs // groups)
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
            bias_init=symmetric_uniform(bound),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            rngs=self.rngs,
        )

    def linear(
        self, inputs: int, outputs: int, *, bias_init: Initializer | None = None
    ) -> nnx.Linear:
        """Makes a linear layer with bias."""
        return nnx.Linear(
            inputs,
            outputs,
            kernel_init=self.linear_init,
            bias_init=bias_init or symmetric_uniform(1 / math.sqrt(inputs)),
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
            rngs=self.rngs,
        )


def max_pool(x: jax.Array, size: int, stride: int, padding: int = 0) -> jax.Array:
    """Takes maxima over square windows; what does not fill a window is dropped."""
    pads = ((padding, padding), (padding, padding))
    return nnx.max_pool(x, (size, size), (stride, stride), pads)


def global_pool(x: jax.Array) -> jax.Array:
    """Averages ``[b, h, w, d]`` over the image to ``[b, d]``."""
    return jnp.mean(x, axis=(1, 2))


def flatten(x: jax.Array) -> jax.Array:
    """Lays out each example as one row, ``[b, ...]`` to ``[b, d]``."""
    return x.reshape(len(x), -1)
