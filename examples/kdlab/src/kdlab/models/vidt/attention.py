"""The reconfigured attention module: one for patches and detection tokens."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.models._blocks import Layers
from kdlab.models.vidt.layers import draw
from kdlab.models.vidt.windows import (
    OUT,
    attend,
    join,
    partition,
    relative_index,
    shift_mask,
)


class Context(NamedTuple):
    """What detection tokens need to attend to patches.

    Attributes:
        positions: Sine positions of the patches, ``[b, h, w, d]``.
        mask: True at padding, ``[b, h, w]`` bool.
    """

    positions: jax.Array
    mask: jax.Array


class ReconfiguredAttention(nnx.Module):
    """Attention of patches in windows and of detection tokens to tokens and patches.

    Both kinds share all weights. Patches never attend to tokens.

    Args:
        width: Number of channels.
        heads: Number of heads.
        window: Side of the windows.
        shift: By how much the windows are shifted; 0: not.
        layers: Factory of the layers.
    """

    def __init__(
        self, width: int, heads: int, window: int, shift: int, *, layers: Layers
    ):
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = layers.linear(width, 3 * width)
        self.proj = layers.linear(width, width)
        self.relative_position_bias_table = draw(layers, (2 * window - 1) ** 2, heads)

    def __call__(
        self, patches: jax.Array, tokens: jax.Array, context: Context | None
    ) -> jax.Array:
        """Attends.

        Args:
            patches: ``[b, h, w, d]``.
            tokens: Detection tokens with their positions, ``[b, n, d]``.
            context: What lets tokens attend to the patches too; None: they do not.

        Returns:
            Patches and tokens, ``[b, h * w + n, d]``.
        """
        flat = self._attend_in_windows(patches).reshape(len(patches), -1, self.width)
        tokens = self._attend_to_tokens(tokens, patches, context)
        return self.proj(jnp.concatenate([flat, tokens], 1))

    @property
    def width(self) -> int:
        """Number of channels."""
        return self.proj.in_features

    def _project(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """Returns queries, keys and values ``[..., heads, e]``."""
        qkv = self.qkv(x)
        qkv = qkv.reshape(*x.shape[:-1], 3, self.heads, self.width // self.heads)
        return tuple(qkv[..., i, :, :] for i in range(3))

    def _attend_in_windows(self, x: jax.Array) -> jax.Array:
        h, w = x.shape[1:3]
        # Padding is not masked: its keys and values are the biases of the projection.
        x = jnp.pad(x, ((0, 0), (0, -h % self.window), (0, -w % self.window), (0, 0)))
        size = x.shape[1], x.shape[2]
        if self.shift:
            x = jnp.roll(x, (-self.shift, -self.shift), (1, 2))
        table = self.relative_position_bias_table[...]
        bias = table[relative_index(self.window)].transpose(2, 0, 1)[None, None]
        biases = [bias]
        if self.shift:
            apart = shift_mask(size, self.window, self.shift)
            biases.append(jnp.where(apart, OUT, 0)[None, :, None])
        x = attend(*self._project(partition(x, self.window)), *biases)
        x = join(x, self.window, size)
        if self.shift:
            x = jnp.roll(x, (self.shift, self.shift), (1, 2))
        return x[:, :h, :w]

    def _attend_to_tokens(
        self, tokens: jax.Array, patches: jax.Array, context: Context | None
    ) -> jax.Array:
        q, k, v = self._project(tokens)
        if context is None:
            return attend(q, k, v)
        placed = patches + context.positions.astype(patches.dtype)
        _, k_patch, v_patch = self._project(
            placed.reshape(len(patches), -1, self.width)
        )
        mask = context.mask.reshape(len(patches), 1, 1, -1)
        mask = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (0, tokens.shape[1])))
        return attend(
            q,
            jnp.concatenate([k_patch, k], 1),
            jnp.concatenate([v_patch, v], 1),
            jnp.where(mask, OUT, 0),
        )
