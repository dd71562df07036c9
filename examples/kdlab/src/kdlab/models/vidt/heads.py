"""Heads that turn tokens into boxes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from kdlab.models._blocks import Layers


class BoxHead(nnx.Module):
    """Three linear layers that change a box in logits.

    Args:
        width: Number of channels.
        size_bias: First change of width and height; that of the centre is 0.
        layers: Factory of the layers.
    """

    def __init__(self, width: int, size_bias: float, *, layers: Layers):
        def last_bias(key: jax.Array, shape: Any, dtype: DTypeLike) -> jax.Array:
            del key, shape
            return jnp.array([0, 0, size_bias, size_bias], dtype)

        last = dataclasses.replace(
            layers, linear_init=nnx.initializers.zeros, bias_init=last_bias
        )
        self.layers = nnx.List(
            [layers.linear(width, width) for _ in range(2)] + [last.linear(width, 4)]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns changes ``[..., 4]``."""
        *hidden, last = self.layers
        for layer in hidden:
            x = nnx.relu(layer(x))
        return last(x)


def logit(x: jax.Array, eps: float = 1e-5) -> jax.Array:
    r"""Inverts the sigmoid, with ``x`` and ``1 - x`` clamped from below.

    Examples:
        >>> import jax.numpy as jnp
        >>> print(logit(jnp.array([0.0, 0.5, 1.0])))
        [-11.512925   0.        11.512925]
    """
    x = jnp.clip(x, 0, 1)
    return jnp.log(jnp.maximum(x, eps)) - jnp.log(jnp.maximum(1 - x, eps))
