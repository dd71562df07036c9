"""The configuration of an encoder, and the published sizes."""

import dataclasses
from typing import Any, Literal

Family = Literal["bert", "roberta", "distilbert"]


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes of an encoder and the details in which the families differ.

    Attributes:
        family: Which head a sequence classifier has, how positions are numbered, and
            the names in checkpoints.
        vocabulary: Number of tokens.
        width: Width of the hidden states, a multiple of `heads`.
        depth: Number of layers.
        heads: Number of attention heads.
        hidden: Width of the hidden layer of each block.
        positions: Number of position embeddings. RoBERTa uses two less, since its
            positions start at ``padding_id + 1``.
        types: Number of segment embeddings; 0 for DistilBERT.
        padding_id: Token id of padding.
        separator_id: Token id of ``[SEP]``, which tells the segments of a pair apart
            where no types are given.
        epsilon: Added to variances.
        activation: ``gelu`` by the error function, ``gelu_tanh`` as in Google's own
            code, or ``relu``.
        dropout: Rate at hidden states.
        attention_dropout: Rate at attention probabilities.
        head_dropout: Rate in front of a classifier.

    Raises:
        ValueError: If the heads do not divide the width.
    """

    family: Family = "bert"
    vocabulary: int = 30_522
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    positions: int = 512
    types: int = 2
    padding_id: int = 0
    separator_id: int = 102
    epsilon: float = 1e-12
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    head_dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuses a width that the heads cannot share."""
        if self.width % self.heads:
            raise ValueError(
                f"a width of {self.width} cannot be shared by {self.heads} heads; "
                "choose a number of heads that divides it."
            )

    def without_dropout(self) -> "EncoderConfig":
        """Returns the same encoder without dropout: it needs no random streams."""
        return dataclasses.replace(
            self, dropout=0.0, attention_dropout=0.0, head_dropout=0.0
        )


def bert(depth: int, width: int, **changes: Any) -> EncoderConfig:
    """Returns a BERT with heads of 64 and hidden layers of four times the width.

    Args:
        depth: Number of layers.
        width: Width of the hidden states.
        **changes: Other attributes of the configuration.

    Examples:
        >>> bert(4, 256).heads, bert(4, 256).hidden
        (4, 1024)
    """
    sizes: dict[str, Any] = {"heads": max(1, width // 64), "hidden": 4 * width}
    return EncoderConfig(depth=depth, width=width, **(sizes | changes))


def roberta(depth: int, width: int, **changes: Any) -> EncoderConfig:
    """Returns a RoBERTa: other special tokens, one segment, no pooler."""
    return bert(
        depth,
        width,
        **{
            "family": "roberta",
            "vocabulary": 50_265,
            "positions": 514,
            "types": 1,
            "padding_id": 1,
            "separator_id": 2,
            "epsilon": 1e-5,
            **changes,
        },
    )


def distilbert(depth: int, width: int, **changes: Any) -> EncoderConfig:
    """Returns a DistilBERT: no segments, no pooler, a classifier with ReLU."""
    changed = {"family": "distilbert", "types": 0, "head_dropout": 0.2, **changes}
    return bert(depth, width, **changed)


ENCODERS: dict[str, EncoderConfig] = {
    "bert_tiny": bert(2, 128),
    "bert_mini": bert(4, 256),
    "bert_small": bert(4, 512),
    "bert_medium": bert(8, 512),
    "bert_base": bert(12, 768),
    "bert_large": bert(24, 1024),
    "tinybert_4": bert(4, 312, heads=12, hidden=1200),
    "tinybert_6": bert(6, 768),
    "minilm_6": bert(6, 384, heads=12),
    "minilm_12": bert(12, 384, heads=12),
    "distilbert_base": distilbert(6, 768),
    "roberta_base": roberta(12, 768),
    "roberta_large": roberta(24, 1024),
}
"""The published sizes by name."""
