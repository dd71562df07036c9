"""A small transformer encoder for short texts."""

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.models import Model, Outputs

PADDING, UNKNOWN = 0, 1


class Block(nnx.Module):
    """A pre-norm block of attention and a hidden layer, with residual connections."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(
            heads, width, decode=False, use_bias=False, rngs=rngs
        )
        self.hidden = nnx.Linear(width, 2 * width, rngs=rngs)
        self.project = nnx.Linear(2 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Maps ``[b, t, d]`` to ``[b, t, d]``; the mask is ``[b, 1, 1, t]``."""
        x = x + self.attention(self.norms[0](x), mask=mask)
        return x + self.project(nnx.gelu(self.hidden(self.norms[1](x))))


class Transformer(Model):
    """Token and position embeddings, blocks, mean over tokens, and a classifier.

    Features are the outputs of the blocks as maps of one row, ``[b, 1, t, d]``.

    Args:
        vocabulary: Size of the vocabulary; 0 is padding.
        length: Number of tokens per text.
        num_classes: Number of classes.
        width: Width of the embeddings and blocks.
        depth: Number of blocks.
        heads: Number of attention heads.
        rngs: Keys of the initial weights.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        num_classes: int,
        *,
        width: int,
        depth: int,
        heads: int,
        rngs: nnx.Rngs,
    ):
        self.tokens = nnx.Embed(vocabulary, width, rngs=rngs)
        self.positions = nnx.Embed(length, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs=rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.classifier = nnx.Linear(width, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> Outputs:
        """Runs the network on token ids ``[b, t]``."""
        present = x != PADDING
        hidden = self.tokens(x) + self.positions(jnp.arange(x.shape[-1]))[None]
        features = []
        for block in self.blocks:
            hidden = block(hidden, present[:, None, None, :])
            features.append(hidden[:, None])
        share = present[..., None] / jnp.maximum(present.sum(-1), 1)[:, None, None]
        pooled = jnp.sum(self.norm(hidden) * share, axis=1)
        maps = tuple(features)
        return Outputs(self.classifier(pooled), maps, maps, pooled)
