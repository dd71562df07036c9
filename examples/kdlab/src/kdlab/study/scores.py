"""Metrics of text tasks as functions of logits and a part."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from kdlab.data.text import metrics
from kdlab.study.task import Metric, Part, accuracy

LONGEST_ANSWER = 30  # tokens


class Answers(NamedTuple):
    """What the metrics of answers need.

    Attributes:
        contexts: The texts.
        answers: Accepted answers of each question.
        offsets: Characters of each token in its text, ``[n, t, 2]``.
    """

    contexts: list[str]
    answers: list[list[str]]
    offsets: np.ndarray


def find_answers(logits: np.ndarray, facts: Answers) -> list[str]:
    """Returns the text of the likeliest span of each question.

    Spans end where they begin or later and have at most 30 tokens. The span of the
    first token, which is no part of the text, says that there is no answer.

    Args:
        logits: Of start and end, ``[n, 2, t]``.
        facts: Where the tokens come from.
    """
    length = logits.shape[-1]
    width = np.arange(length)[None] - np.arange(length)[:, None]
    allowed = (width >= 0) & (width < LONGEST_ANSWER)
    allowed[0, 1:] = False
    found = []
    for (start, end), context, offsets in zip(
        logits, facts.contexts, facts.offsets, strict=True
    ):
        total = np.where(allowed, start[:, None] + end[None], -np.inf)
        first, last = np.unravel_index(np.argmax(total), total.shape)
        found.append(context[offsets[first, 0] : offsets[last, 1]])
    return found


def _classes(
    score: Callable[[np.ndarray, np.ndarray], float], logits: np.ndarray, part: Part
) -> float:
    return score(part.labels, np.argmax(logits, -1))


def _similarity(
    score: Callable[[np.ndarray, np.ndarray], float], logits: np.ndarray, part: Part
) -> float:
    return score(part.labels[:, 1], _share(logits))


def human_spearman(logits: np.ndarray, part: Part) -> float:
    """Computes the rank correlation of probabilities and the opinion of people."""
    if part.human is None:
        raise ValueError("the part has no opinions of people")
    return metrics.spearman(part.human[:, 1], _share(logits))


def _share(logits: np.ndarray) -> np.ndarray:
    """Returns a number that orders texts as the probability of class 1 does."""
    gap = logits[:, 1].astype(np.float64) - logits[:, 0]
    return 1 / (1 + np.exp(-gap))


def _spans(names: tuple[str, ...], logits: np.ndarray, part: Part) -> float:
    def tags(classes: np.ndarray) -> list[list[str]]:
        return [
            [names[c] for c in row[known]]
            for row, known in zip(classes, part.labels >= 0, strict=True)
        ]

    return metrics.span_f1(tags(part.labels), tags(np.argmax(logits, -1)))


def _answers(
    score: Callable[[list[str], str], float], logits: np.ndarray, part: Part
) -> float:
    found = find_answers(logits, part.facts)
    rows = zip(part.facts.answers, found, strict=True)
    return float(np.mean([score(answers, text) for answers, text in rows]))


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "matthews": partial(_classes, metrics.matthews),
    "f1": partial(_classes, metrics.f1),
    "pearson": partial(_similarity, metrics.pearson),
    "spearman": partial(_similarity, metrics.spearman),
    "human_spearman": human_spearman,
    "answer_f1": partial(_answers, metrics.answer_f1),
    "exact_match": partial(_answers, metrics.exact_match),
}
"""Metrics by name, without ``span_f1``, which needs the names of the tags."""


def choose_metrics(
    names: tuple[str, ...], tags: tuple[str, ...] = ()
) -> dict[str, Metric]:
    """Returns metrics by name.

    Args:
        names: The names.
        tags: Names of the classes of a tagging task.
    """
    known = METRICS | {"span_f1": partial(_spans, tags)}
    return {name: known[name] for name in names}
