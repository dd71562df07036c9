"""Heads of encoders: one class per text, one per token, or a span of tokens."""

import jax
from flax import nnx

from kdlab.models._outputs import Model, Outputs
from kdlab.models.encoders._config import EncoderConfig
from kdlab.models.encoders._encoder import ACTIVATIONS, Encoder, dropout, linear


class SequenceClassifier(Model):
    """An encoder with one class per text or pair of texts.

    The head reads the first token: a dense layer (the pooler of BERT) with tanh, or
    ReLU for DistilBERT, dropout, and a linear layer. RoBERTa has dropout in front of
    the dense layer as well. Features are the outputs of the layers as maps of one row,
    ``[b, 1, t, d]``; the pooled features are the input of the linear layer.

    Args:
        config: The encoder.
        num_classes: Number of classes.
        rngs: Keys of the initial values (``params``) and of dropout.
    """

    def __init__(self, config: EncoderConfig, num_classes: int, *, rngs: nnx.Rngs):
        self.encoder = Encoder(config, rngs=rngs)
        before = config.head_dropout if config.family == "roberta" else 0.0
        self.dropout_before = dropout(before, rngs=rngs)
        self.dense = linear(config.width, config.width, rngs=rngs)
        self.dropout = dropout(config.head_dropout, rngs=rngs)
        self.classifier = linear(config.width, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array, types: jax.Array | None = None) -> Outputs:
        """Runs the network on token ids ``[b, t]``."""
        hidden = self.encoder(x, types)
        first = self.dropout_before(hidden[-1][:, 0])
        relu = self.encoder.config.family == "distilbert"
        pooled = ACTIVATIONS["relu" if relu else "tanh"](self.dense(first))
        return _outputs(self.classifier(self.dropout(pooled)), hidden, pooled)


class TokenClassifier(Model):
    """An encoder with one class per token, logits ``[b, t, c]``.

    The pooled features are the last hidden states, ``[b, t, d]``.

    Args:
        config: The encoder.
        num_classes: Number of classes.
        rngs: Keys of the initial values (``params``) and of dropout.
    """

    def __init__(self, config: EncoderConfig, num_classes: int, *, rngs: nnx.Rngs):
        self.encoder = Encoder(config, rngs=rngs)
        self.dropout = dropout(config.head_dropout, rngs=rngs)
        self.classifier = linear(config.width, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array, types: jax.Array | None = None) -> Outputs:
        """Runs the network on token ids ``[b, t]``."""
        hidden = self.encoder(x, types)
        return _outputs(self.classifier(self.dropout(hidden[-1])), hidden, hidden[-1])


class SpanClassifier(Model):
    """An encoder that scores each token as start and end of an answer, ``[b, t, 2]``.

    :func:`kdopt.losses.span_cross_entropy` takes these logits. Padding is not masked.

    Args:
        config: The encoder.
        rngs: Keys of the initial values (``params``) and of dropout.
    """

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.encoder = Encoder(config, rngs=rngs)
        rate = config.head_dropout if config.family == "distilbert" else 0.0
        self.dropout = dropout(rate, rngs=rngs)
        self.classifier = linear(config.width, 2, rngs=rngs)

    def __call__(self, x: jax.Array, types: jax.Array | None = None) -> Outputs:
        """Runs the network on token ids ``[b, t]``."""
        hidden = self.encoder(x, types)
        return _outputs(self.classifier(self.dropout(hidden[-1])), hidden, hidden[-1])


def _outputs(
    logits: jax.Array, hidden: tuple[jax.Array, ...], pooled: jax.Array
) -> Outputs:
    maps = tuple(layer[:, None] for layer in hidden[1:])
    return Outputs(logits, maps, maps, pooled)
