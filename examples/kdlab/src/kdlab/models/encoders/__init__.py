"""BERT-like text encoders in Flax NNX, their heads and their checkpoints.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from kdlab.models import encoders
>>> config = encoders.bert(2, 64, vocabulary=100, positions=16)
>>> model = encoders.SequenceClassifier(config, 3, rngs=nnx.Rngs(0))
>>> model.eval()
>>> model(jnp.array([[2, 17, 35, 3, 0, 0]])).logits.shape
(1, 3)
"""

from kdlab.models.encoders._config import (
    ENCODERS,
    EncoderConfig,
    bert,
    distilbert,
    roberta,
)
from kdlab.models.encoders._encoder import Encoder
from kdlab.models.encoders._heads import (
    SequenceClassifier,
    SpanClassifier,
    TokenClassifier,
)
from kdlab.models.encoders._pretrained import from_torch, load, read_config

__all__ = [
    "ENCODERS",
    "Encoder",
    "EncoderConfig",
    "SequenceClassifier",
    "SpanClassifier",
    "TokenClassifier",
    "bert",
    "distilbert",
    "from_torch",
    "load",
    "read_config",
    "roberta",
]
