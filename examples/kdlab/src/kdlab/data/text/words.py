"""Tokens by characters or words, with a vocabulary of the training texts."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from kdlab.models.encoders.pre_norm import PADDING, UNKNOWN


def split_units(text: str, *, characters: bool) -> list[str]:
    """Splits a text into characters, or into lower-case words and punctuation.

    >>> split_units("In the beginning, God", characters=False)
    ['in', 'the', 'beginning', ',', 'god']
    """
    if characters:
        return list(text)
    spaced = "".join(c if c.isalnum() or c in "'-" else f" {c} " for c in text.lower())
    return spaced.split()


class Tokens:
    """Tokenizer with the most frequent units of the training texts.

    Args:
        texts: The training texts.
        characters: Whether units are characters rather than words.
        size: Size of the vocabulary, including padding and unknown units.
        length: Number of tokens per text; longer texts are cut.
    """

    def __init__(
        self, texts: Sequence[str], *, characters: bool, size: int, length: int
    ):
        counts = Counter(
            unit for text in texts for unit in split_units(text, characters=characters)
        )
        # Sorted, since a Counter orders ties by first occurrence.
        common = sorted(counts, key=lambda unit: (-counts[unit], unit))[: size - 2]
        self.numbers = {unit: i for i, unit in enumerate(common, start=2)}
        self.characters, self.length = characters, length

    def __len__(self) -> int:
        """Returns the size of the vocabulary."""
        return len(self.numbers) + 2

    def __call__(self, texts: Sequence[str]) -> Int32[np.ndarray, "n t"]:
        """Returns token ids, padded to the length."""
        out = np.full((len(texts), self.length), PADDING, np.int32)
        for row, text in zip(out, texts, strict=True):
            units = split_units(text, characters=self.characters)[: self.length]
            row[: len(units)] = [self.numbers.get(unit, UNKNOWN) for unit in units]
        return out
