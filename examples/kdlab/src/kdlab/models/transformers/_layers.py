"""Layers that the families of vision transformers share."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.models._batch_norm import widen
from kdlab.models._blocks import Layers
from kdlab.models._layer_norm import LayerNorm

# N(0, 0.02^2) for matrices and embeddings. DeiT cuts it off at +-2, which is a hundred
# standard deviations, and not at two of them as Flax's truncated normal does.
embedding_init = nnx.initializers.normal(0.02)


def matrix_layers(layers: Layers) -> Layers:
    """Sets the initial values of DeiT: normal matrices, and biases of 0."""
    zeros = nnx.initializers.zeros
    return dataclasses.replace(layers, linear_init=embedding_init, bias_init=zeros)


def embedding(count: int, width: int, layers: Layers) -> nnx.Param:
    """Makes a learned embedding of some tokens, ``[1, n, d]``."""
    key = layers.rngs.params()
    return nnx.Param(embedding_init(key, (1, count, width), layers.param_dtype))


def branch_factors(width: int, value: float | None, layers: Layers) -> nnx.Param | None:
    """Makes the factors of a branch, ``[d]``, or none."""
    if value is None:
        return None
    return nnx.Param(jnp.full(width, value, layers.param_dtype))


def layer_norm(width: int, layers: Layers) -> LayerNorm:
    """Makes a LayerNorm with the epsilon of DeiT, 1e-6, and not PyTorch's 1e-5."""
    return LayerNorm(width, layers, epsilon=1e-6)


class Mlp(nnx.Module):
    """Two linear layers, the inner one four times as wide, with the exact GELU.

    ``jax.nn.gelu`` is the tanh approximation unless asked: logits of DeiT-Ti would move
    by 6e-4.

    Args:
        width: Number of channels.
        layers: Factory of the layers.
    """

    def __init__(self, width: int, layers: Layers):
        self.fc1 = layers.linear(width, 4 * width)
        self.fc2 = layers.linear(4 * width, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[b, n, d]`` to ``[b, n, d]``."""
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """Splits channels into heads, ``[b, n, d]`` to ``[b, n, heads, d / heads]``."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def score(query: jax.Array, key: jax.Array) -> jax.Array:
    r"""Computes scaled products :math:`q k^\top / \sqrt{d}` in float32 or wider.

    Args:
        query: ``[b, m, heads, d]``.
        key: ``[b, n, heads, d]``.

    Returns:
        ``[b, heads, m, n]``.
    """
    products = jnp.einsum(
        "bmhd,bnhd->bhmn", query, key, preferred_element_type=widen(query.dtype)
    )
    return products * query.shape[-1] ** -0.5


def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Applies softmax attention, with the softmax in float32 or wider.

    Args:
        query: ``[b, m, heads, d]``.
        key: ``[b, n, heads, d]``.
        value: ``[b, n, heads, d]``.

    Returns:
        ``[b, m, heads * d]``.
    """
    if query.dtype == jnp.float64:  # JAX's own rounds the softmax to float32
        weights = jax.nn.softmax(score(query, key))
        mixed = jnp.einsum("bhmn,bnhd->bmhd", weights, value)
    else:
        # It promotes bfloat16 itself, which strict promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            mixed = jax.nn.dot_product_attention(query, key, value)
    return mixed.reshape(*mixed.shape[:2], -1)


class Attention(nnx.Module):
    """Multi-head self-attention with one matrix for queries, keys and values.

    Args:
        width: Number of channels.
        heads: Number of heads.
        layers: Factory of the layers.
    """

    def __init__(self, width: int, heads: int, layers: Layers):
        self.heads = heads
        self.qkv = layers.linear(width, 3 * width)
        self.proj = layers.linear(width, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[b, n, d]`` to ``[b, n, d]``."""
        return self.proj(attend(*self.split(x)))

    def split(self, x: jax.Array) -> list[jax.Array]:
        """Returns queries, keys and values, ``[b, n, heads, d / heads]`` each."""
        return [split_heads(part, self.heads) for part in jnp.split(self.qkv(x), 3, -1)]

    def attention_of_first(self, x: jax.Array) -> jax.Array:
        """Returns the attention of the first token to all, ``[b, heads, n]``."""
        query, key, _ = self.split(x)
        return jax.nn.softmax(score(query[:, :1], key))[:, :, 0]


class Block(nnx.Module):
    r"""A pre-norm block: attention and an MLP, each on a branch beside the tokens.

    .. math::
        x \leftarrow x + \gamma_1\,\mathrm{attn}(\mathrm{LN}(x)) \qquad
        x \leftarrow x + \gamma_2\,\mathrm{mlp}(\mathrm{LN}(x))

    Args:
        attention: The attention among the tokens.
        width: Number of channels d.
        layers: Factory of the layers.
        layer_scale: Initial value of the factors gamma; None: without them.
    """

    def __init__(
        self,
        attention: Attention,
        width: int,
        layers: Layers,
        layer_scale: float | None = None,
    ):
        self.norm1 = layer_norm(width, layers)
        self.attn = attention
        self.norm2 = layer_norm(width, layers)
        self.mlp = Mlp(width, layers)
        self.gamma_1 = branch_factors(width, layer_scale, layers)
        self.gamma_2 = branch_factors(width, layer_scale, layers)

    def __call__(self, x: jax.Array, kept: jax.Array | None = None) -> jax.Array:
        """Runs the block.

        Args:
            x: Tokens, ``[b, n, d]``.
            kept: Factors of the two branches, ``[2, b]``; None: 1.

        Returns:
            Tokens, ``[b, n, d]``.
        """
        one, two = (None, None) if kept is None else kept
        x = x + scale_branch(self.attn(self.norm1(x)), self.gamma_1, one)
        return x + scale_branch(self.mlp(self.norm2(x)), self.gamma_2, two)

    def attention_of_first(self, x: jax.Array) -> jax.Array:
        """Returns the attention of the first token to all, ``[b, heads, n]``."""
        return self.attn.attention_of_first(self.norm1(x))


def scale_branch(
    x: jax.Array, gamma: nnx.Param | None, kept: jax.Array | None
) -> jax.Array:
    """Multiplies a branch ``[b, n, d]`` by factors ``[d]`` and ``[b]``."""
    if gamma is not None:
        x = x * gamma[...].astype(x.dtype)[None, None]
    if kept is not None:
        x = x * kept[:, None, None].astype(x.dtype)
    return x
