"""The encoder: embeddings, and layers that normalise after each residual sum."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.models.encoders._config import EncoderConfig

ACTIVATIONS = {
    "gelu": partial(nnx.gelu, approximate=False),  # by the error function
    "gelu_tanh": partial(nnx.gelu, approximate=True),
    "relu": nnx.relu,
    "tanh": nnx.tanh,
}
_normal = nnx.initializers.normal(0.02)


def linear(inputs: int, outputs: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Makes a linear layer with BERT's initial values: N(0, 0.02), bias 0."""
    return nnx.Linear(inputs, outputs, kernel_init=_normal, rngs=rngs)


def dropout(rate: float, *, rngs: nnx.Rngs) -> nnx.Dropout:
    """Makes dropout with a mask per element; a rate of 0 keeps no random stream."""
    return nnx.Dropout(rate, rngs=rngs if rate else None)


def _layer_norm(config: EncoderConfig, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # E[x^2] - E[x]^2 may round to 0, and 1e-12 does not hide that.
    return nnx.LayerNorm(
        config.width, epsilon=config.epsilon, use_fast_variance=False, rngs=rngs
    )


class Attention(nnx.Module):
    """Self-attention of several heads, with biases.

    Args:
        config: Sizes.
        rngs: Keys of the initial values and of dropout.
    """

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        make: Any = partial(linear, config.width, config.width, rngs=rngs)
        self.query, self.key, self.value, self.out = make(), make(), make(), make()
        self.dropout = dropout(config.attention_dropout, rngs=rngs)
        self.heads = config.heads

    def __call__(self, x: jax.Array, present: jax.Array) -> jax.Array:
        """Maps ``[b, t, d]`` to ``[b, t, d]``; no token attends to absent ones."""

        def split(y: jax.Array) -> jax.Array:
            return y.reshape(*y.shape[:-1], self.heads, -1)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(
            jnp.asarray(q.shape[-1], x.dtype)
        )
        # The lowest number rather than -inf: a text of padding alone stays finite.
        lowest = jnp.finfo(scores.dtype).min
        scores = jnp.where(present[:, None, None, :], scores, lowest)
        shares = self.dropout(jax.nn.softmax(scores, axis=-1))
        mixed = jnp.einsum("bhqk,bkhd->bqhd", shares, v)
        return self.out(mixed.reshape(x.shape))


class Layer(nnx.Module):
    """Attention and a hidden layer, each added to its input and then normalised.

    Args:
        config: Sizes.
        rngs: Keys of the initial values and of dropout.
    """

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.attention = Attention(config, rngs=rngs)
        self.attention_norm = _layer_norm(config, rngs=rngs)
        self.hidden = linear(config.width, config.hidden, rngs=rngs)
        self.project = linear(config.hidden, config.width, rngs=rngs)
        self.norm = _layer_norm(config, rngs=rngs)
        self.dropouts = nnx.List([dropout(config.dropout, rngs=rngs) for _ in range(2)])
        self.activation = config.activation

    def __call__(self, x: jax.Array, present: jax.Array) -> jax.Array:
        """Maps ``[b, t, d]`` to ``[b, t, d]``; `present` tells tokens from padding."""
        first, second = self.dropouts
        x = self.attention_norm(x + first(self.attention(x, present)))
        hidden = ACTIVATIONS[self.activation](self.hidden(x))
        return self.norm(x + second(self.project(hidden)))


class Encoder(nnx.Module):
    r"""A bidirectional transformer with normalisation after each residual sum.

    .. math::
        h_0 &= \mathrm{LN}(w + p + s), \\
        a_l &= \mathrm{LN}(h_{l-1} + \mathrm{Attention}(h_{l-1})), \\
        h_l &= \mathrm{LN}(a_l + W_2\, \mathrm{gelu}(W_1 a_l))

    with embeddings of words, positions and segments. There is no norm after the last
    layer.

    Args:
        config: Sizes and details.
        rngs: Keys of the initial values (``params``) and of dropout.

    References:
        Devlin et al., `BERT <https://arxiv.org/abs/1810.04805>`_, NAACL 2019;
        Liu et al., `RoBERTa <https://arxiv.org/abs/1907.11692>`_, 2019;
        Sanh et al., `DistilBERT <https://arxiv.org/abs/1910.01108>`_, 2019
    """

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        def embed(count: int) -> nnx.Embed:
            return nnx.Embed(count, config.width, embedding_init=_normal, rngs=rngs)

        self.config = config
        self.words = embed(config.vocabulary)
        self.positions = embed(config.positions)
        self.types = embed(config.types) if config.types else None
        self.norm = _layer_norm(config, rngs=rngs)
        self.dropout = dropout(config.dropout, rngs=rngs)
        self.layers = nnx.List([Layer(config, rngs=rngs) for _ in range(config.depth)])

    def __call__(
        self, ids: jax.Array, types: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """Computes the hidden states of token ids ``[b, t]``.

        Args:
            ids: Token ids, padded on the right.
            types: Segment of each token ``[b, t]``; None: by the separators.

        Returns:
            ``[b, t, d]`` after the embeddings and after each layer.

        Raises:
            ValueError: If the texts are longer than the table of positions.
        """
        present = ids != self.config.padding_id
        x = self.words(ids) + self.positions(self._number(present))
        if self.types is not None:
            if types is None:
                several = self.config.types > 1
                types = self.find_segments(ids) if several else jnp.zeros_like(ids)
            x = x + self.types(types)
        hidden = [self.dropout(self.norm(x))]
        for layer in self.layers:
            hidden.append(layer(hidden[-1], present))
        return tuple(hidden)

    def find_segments(self, ids: jax.Array) -> jax.Array:
        """Returns 1 for the second text of a pair and its separator, elsewhere 0."""
        separator = ids == self.config.separator_id
        earlier = jnp.cumsum(separator, axis=-1) - separator
        second = (earlier > 0) & (ids != self.config.padding_id)
        return second.astype(ids.dtype)

    def _number(self, present: jax.Array) -> jax.Array:
        longest = self.config.positions
        if self.config.family == "roberta":
            longest -= self.config.padding_id + 1
        if present.shape[-1] > longest:
            raise ValueError(
                f"texts of {present.shape[-1]} tokens are longer than the {longest} "
                "that this encoder has positions for; cut them."
            )
        if self.config.family == "roberta":
            counted = jnp.cumsum(present, axis=-1) * present
            return counted + self.config.padding_id
        return jnp.arange(present.shape[-1])[None]
