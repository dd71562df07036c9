"""Layers of all parts of a ViDT."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab.models._batch_norm import widen
from kdlab.models._blocks import Layers
from kdlab.models._layer_norm import LayerNorm

# PyTorch cuts at +-2, a hundred standard deviations away.
trunc_normal = nnx.initializers.normal(0.02)
xavier = nnx.initializers.xavier_uniform()


def count_on_host(rngs: nnx.Rngs) -> nnx.Rngs:
    """Returns a random stream that counts its keys in NumPy.

    Flax's counter is traced, and each step of it takes a time that grows with the
    program: most of the time in which an abstract model is made.
    """
    own = nnx.Rngs(rngs.params())
    count: Any = np.zeros((), np.uint32)
    own.default.count = nnx.RngCount(count, tag="default")
    return own


class GroupNorm(nnx.GroupNorm):
    """GroupNorm with statistics of at least float32."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises ``[b, ..., d]`` over positions and the channels of a group."""
        return super().__call__(x.astype(widen(x.dtype))).astype(x.dtype)


def layer_norm(width: int, layers: Layers) -> LayerNorm:
    """Makes a LayerNorm with PyTorch's epsilon."""
    return LayerNorm(width, layers, epsilon=1e-5)


def group_norm(width: int, layers: Layers) -> GroupNorm:
    """Makes a GroupNorm of 32 groups with PyTorch's epsilon."""
    return GroupNorm(
        width,
        num_groups=32,
        epsilon=1e-5,
        use_fast_variance=False,
        param_dtype=layers.param_dtype,
        rngs=layers.rngs,
    )


def draw(layers: Layers, *shape: int) -> nnx.Param[jax.Array]:
    """Makes a parameter that is not in a layer, from N(0, 0.02^2)."""
    return nnx.Param(trunc_normal(layers.rngs.params(), shape, layers.param_dtype))


def dropout(
    x: jax.Array, rate: float, key: jax.Array | None, axes: int | None = None
) -> jax.Array:
    r"""Zeroes entries at random and divides the others by ``1 - rate``.

    Args:
        x: Any shape.
        rate: Probability of zero.
        key: Random key; None: returns ``x``.
        axes: Number of leading axes along which entries are drawn; the rest of an entry
            is kept or dropped as a whole. None: all.

    Returns:
        Of the shape and dtype of ``x``.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> print(dropout(jnp.ones((3, 2)), 0.5, jax.random.key(0), axes=1))
        [[0. 0.]
         [0. 0.]
         [2. 2.]]
    """
    if key is None or not rate:
        return x
    drawn = x.shape[:axes]
    keep = jax.random.bernoulli(key, 1 - rate, drawn)
    keep = keep.reshape(*drawn, *[1] * (x.ndim - len(drawn)))
    return jnp.where(keep, x / (1 - rate), 0)
