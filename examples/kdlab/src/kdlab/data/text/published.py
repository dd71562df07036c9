"""Public sets of texts: their own fields, splits and metrics."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Published:
    """How a set is read and scored.

    Attributes:
        texts: Fields of the texts: one, or the two of a pair.
        label: Field of the label.
        test: Split for the test.
        validation: Split on which settings are chosen; None: a tenth of ``train``.
        metrics: Metrics, the one that is searched for first.
        length: Number of tokens to which texts are cut.
        kind: What the label is: a ``class``, the ``similarity`` of two texts,
            ``tags`` of words, or ``answers`` in the second text.
    """

    texts: tuple[str, ...]
    label: str = "label"
    _: dataclasses.KW_ONLY
    test: str = "validation"
    validation: str | None = None
    metrics: tuple[str, ...] = ("accuracy",)
    length: int = 64
    kind: str = "class"


_SENTENCES = ("sentence1", "sentence2")
_PREMISE = ("premise", "hypothesis")
_QUESTION = ("question", "context")
_ANSWERS: dict[str, Any] = {
    "metrics": ("answer_f1", "exact_match"),
    "length": 384,
    "kind": "answers",
}

PUBLISHED: dict[str, Published] = {
    "glue/cola": Published(("sentence",), metrics=("matthews", "accuracy")),
    "glue/sst2": Published(("sentence",)),
    "glue/mrpc": Published(_SENTENCES, metrics=("f1", "accuracy"), length=128),
    "glue/qqp": Published(("question1", "question2"), metrics=("f1", "accuracy")),
    "glue/stsb": Published(
        _SENTENCES, metrics=("pearson", "spearman"), kind="similarity"
    ),
    "glue/mnli": Published(_PREMISE, test="validation_matched", length=128),
    "glue/qnli": Published(("question", "sentence"), length=128),
    "glue/rte": Published(_SENTENCES, length=128),
    "glue/wnli": Published(_SENTENCES),
    "snli": Published(_PREMISE, test="test", validation="validation"),
    "bool_q": Published(("question", "passage"), "answer", length=256),
    "ag_news_subset": Published(("title", "description"), test="test", length=96),
    "imdb_reviews": Published(("text",), test="test", length=256),
    "trec": Published(("text",), "label-coarse", test="test", length=32),
    "trec:fine": Published(("text",), "label-fine", test="test", length=32),
    "clinc_oos": Published(
        ("text",), "intent", test="test", validation="validation", length=32
    ),
    "conll2003": Published(
        ("tokens",),
        "ner",
        test="test",
        validation="dev",
        metrics=("span_f1", "accuracy"),
        length=128,
        kind="tags",
    ),
    "squad/v1.1": Published(_QUESTION, "answers", **_ANSWERS),
    "squad/v2.0": Published(_QUESTION, "answers", **_ANSWERS),
}
"""The sets by name. GLUE keeps the labels of its test splits secret, so its validation
splits serve as test. ``trec:fine`` has the 47 fine classes of ``trec``."""
