"""Metrics of text tasks, as pure functions of labels and predictions."""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def matthews(labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"]) -> float:
    r"""Computes the Matthews correlation of two classes.

    .. math::
        \frac{TP \cdot TN - FP \cdot FN}
        {\sqrt{(TP + FP)(TP + FN)(TN + FP)(TN + FN)}}

    It is the correlation coefficient of the two, and 0 where one is constant.

    Examples:
        >>> matthews(np.array([1, 1, 0, 0]), np.array([1, 1, 1, 0]))
        0.577...
    """
    return pearson(labels.astype(float), predicted.astype(float))


def f1(labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"]) -> float:
    """Computes the F1 score of class 1; 0 if it is never right.

    Examples:
        >>> f1(np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0]))
        0.5
    """
    right = int(np.sum((labels == 1) & (predicted == 1)))
    return _f1(right, int(np.sum(predicted == 1)), int(np.sum(labels == 1)))


def pearson(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Computes the correlation coefficient; 0 if one of the two is constant.

    Examples:
        >>> pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]))
        1.0
    """
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt(np.sum(a * a) * np.sum(b * b))
    return float(np.clip(np.sum(a * b) / scale, -1, 1)) if scale > 0 else 0.0


def spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Computes the rank correlation; equal numbers share their mean rank.

    Examples:
        >>> spearman(np.array([1.0, 2.0, 9.0]), np.array([0.1, 0.2, 0.3]))
        1.0
    """
    return pearson(_ranks(a), _ranks(b))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[place.reshape(-1)]


def find_spans(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """Returns the entities of a sentence in BIO tags: first word, last word, type.

    An ``I`` that continues no entity of its type begins one, as in the evaluation of
    CoNLL.

    Examples:
        >>> sorted(find_spans(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]))
        [(0, 1, 'PER'), (3, 3, 'LOC'), (4, 4, 'LOC')]
    """
    spans: set[tuple[int, int, str]] = set()
    first, kind = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if kind and (prefix != "I" or name != kind):
            spans.add((first, place - 1, kind))
            kind = ""
        if prefix != "O" and not kind:
            first, kind = place, name
    return spans


def span_f1(
    labels: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> float:
    """Computes the F1 score of entities that agree in both ends and in type.

    Examples:
        >>> span_f1([["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "O", "O", "B-LOC"]])
        0.5
    """
    pairs = [
        (find_spans(a), find_spans(b)) for a, b in zip(labels, predicted, strict=True)
    ]
    right = sum(len(a & b) for a, b in pairs)
    return _f1(right, sum(len(b) for _, b in pairs), sum(len(a) for a, _ in pairs))


def normalize_answer(text: str) -> str:
    """Removes case, punctuation, articles and repeated spaces.

    Examples:
        >>> normalize_answer("The  Eiffel-Tower!")
        'eiffeltower'
    """
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def exact_match(answers: Sequence[str], predicted: str) -> float:
    """Returns 1 if a prediction equals an accepted answer once normalised, else 0.

    No accepted answers: the right prediction is the empty text.

    Examples:
        >>> exact_match(["the Seine", "Seine"], "Seine.")
        1.0
    """
    wanted = [normalize_answer(a) for a in answers] or [""]
    return float(normalize_answer(predicted) in wanted)


def answer_f1(answers: Sequence[str], predicted: str) -> float:
    """Computes the F1 score of the words of a prediction; the best over the answers.

    Examples:
        >>> answer_f1(["in the river Seine"], "the Seine")
        0.5
    """
    return max(_word_f1(answer, predicted) for answer in answers or [""])


def _word_f1(answer: str, predicted: str) -> float:
    wanted = normalize_answer(answer).split()
    found = normalize_answer(predicted).split()
    if not wanted or not found:
        return float(wanted == found)
    common = (Counter(wanted) & Counter(found)).total()
    return _f1(common, len(found), len(wanted))


def _f1(right: int, found: int, wanted: int) -> float:
    return 2 * right / (found + wanted) if right else 0.0
