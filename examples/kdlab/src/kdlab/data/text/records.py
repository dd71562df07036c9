"""Examples of text tasks, before they become tokens."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Shaped


class Texts(NamedTuple):
    """Labelled texts, or pairs of them.

    Attributes:
        texts: The texts.
        labels: Class of each, ``[n]``; or a probability of each class, ``[n, c]``.
        groups: Group of each, ``[n]``; a split keeps groups whole.
        num_classes: Number of classes.
        seconds: The second text of each pair; None: single texts.
        human: Probability of each class in the opinion of people, ``[n, c]``; None if
            nobody was asked.
    """

    texts: list[str]
    labels: Shaped[np.ndarray, "n ..."]
    groups: Int32[np.ndarray, " n"]
    num_classes: int
    seconds: list[str] | None = None
    human: Shaped[np.ndarray, "n c"] | None = None

    def take(self, rows: np.ndarray) -> "Texts":
        """Returns some of the examples."""
        return self._replace(
            texts=_pick(self.texts, rows),
            labels=self.labels[rows],
            groups=self.groups[rows],
            seconds=None if self.seconds is None else _pick(self.seconds, rows),
            human=None if self.human is None else self.human[rows],
        )


class Tagged(NamedTuple):
    """Sentences with a class for each word.

    Attributes:
        words: The words of each sentence.
        labels: Their classes, one array for each sentence.
        groups: Group of each sentence, ``[n]``.
        names: Names of the classes.
    """

    words: list[list[str]]
    labels: list[np.ndarray]
    groups: Int32[np.ndarray, " n"]
    names: tuple[str, ...]

    def take(self, rows: np.ndarray) -> "Tagged":
        """Returns some of the examples."""
        return self._replace(
            words=_pick(self.words, rows),
            labels=_pick(self.labels, rows),
            groups=self.groups[rows],
        )


class Questions(NamedTuple):
    """Questions about texts in which the answers are spans.

    Attributes:
        questions: The questions.
        contexts: The texts.
        answers: Accepted answers of each question; none if it has no answer.
        starts: Index of the first character of the first answer, ``[n]``; -1 if the
            question has no answer.
        groups: Group of each question, ``[n]``: those about one text.
    """

    questions: list[str]
    contexts: list[str]
    answers: list[list[str]]
    starts: Int32[np.ndarray, " n"]
    groups: Int32[np.ndarray, " n"]

    def take(self, rows: np.ndarray) -> "Questions":
        """Returns some of the examples."""
        return Questions(
            _pick(self.questions, rows),
            _pick(self.contexts, rows),
            _pick(self.answers, rows),
            self.starts[rows],
            self.groups[rows],
        )


Examples = Texts | Tagged | Questions


def number_groups(names: list[Any]) -> Int32[np.ndarray, " n"]:
    """Numbers groups: equal names get equal numbers, in order of first occurrence.

    >>> number_groups(["b", "a", "b"])
    array([0, 1, 0], dtype=int32)
    """
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(n, len(numbers)) for n in names], np.int32)


def _pick(values: list, rows: np.ndarray) -> list:
    return [values[row] for row in rows]
