"""Subword tokens by the package ``tokenizers``.

The vocabularies beside this file were trained once and are kept: WordPiece training is
not reproducible. :mod:`kdlab.data.text.vocabulary` has the commands.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from kdlab.basics.reading import UserError, reading

VOCABULARIES = Path(__file__).parent / "vocabularies"
IGNORED = -100
"""Label of tokens without a class: special tokens, and all but the first of a word."""

_PADDING = ("[PAD]", "<pad>")
_SEPARATOR = ("[SEP]", "</s>")


class Located(NamedTuple):
    """Questions and contexts as tokens that know where they come from.

    Attributes:
        ids: Token ids ``[n, t]``.
        spans: First and last token of each answer ``[n, 2]``: the first token, which is
            no part of the text, for a question without an answer; -1 where the answer
            was cut off.
        offsets: First character of each token of the context and the one behind its
            last, ``[n, t, 2]``; 0 for all other tokens.
    """

    ids: Int32[np.ndarray, "n t"]
    spans: Int32[np.ndarray, "n 2"]
    offsets: Int32[np.ndarray, "n t 2"]


class Tokenizer:
    """A tokenizer read from a ``tokenizer.json``.

    Attributes:
        size: Number of tokens of the vocabulary.
        padding_id: Id of padding.
        separator_id: Id of the token between two texts.
    """

    def __init__(self, path: Path):
        """Reads the file.

        Args:
            path: The file, or a folder (of a checkpoint) that holds ``tokenizer.json``.

        Raises:
            ValueError: If it cannot be read, or has no tokens for padding and
                separation.
        """
        from tokenizers import Tokenizer as Reader

        file = path / "tokenizer.json" if path.is_dir() else path
        with reading(file):
            self._reader = Reader.from_str(file.read_text(encoding="utf-8"))
        self._reader.no_padding()
        self.size = self._reader.get_vocab_size()
        self.padding_id = self._special(file, _PADDING)
        self.separator_id = self._special(file, _SEPARATOR)

    def _special(self, file: Path, names: tuple[str, ...]) -> int:
        for name in names:
            number = self._reader.token_to_id(name)
            if number is not None:
                return number
        raise UserError(f"{file} has no token {' or '.join(names)}.")

    def encode(
        self, texts: Sequence[str], seconds: Sequence[str] | None, length: int
    ) -> Int32[np.ndarray, "n t"]:
        """Returns token ids of texts or pairs, cut and padded to a length.

        Of a pair, the longer text is cut first.
        """
        self._reader.enable_truncation(length)
        pairs = texts if seconds is None else list(zip(texts, seconds, strict=True))
        found = self._reader.encode_batch(list(pairs))
        return self._pad([encoding.ids for encoding in found], length)

    def encode_words(
        self,
        words: Sequence[Sequence[str]],
        labels: Sequence[np.ndarray],
        length: int,
    ) -> tuple[Int32[np.ndarray, "n t"], Int32[np.ndarray, "n t"]]:
        """Returns token ids of sentences, and labels on the first token of each word.

        Other tokens have the label :data:`IGNORED`.
        """
        self._reader.enable_truncation(length)
        sentences = [list(sentence) for sentence in words]
        found = self._reader.encode_batch(sentences, is_pretokenized=True)
        told = np.full((len(found), length), IGNORED, np.int32)
        for row, encoding, classes in zip(told, found, labels, strict=True):
            before = None
            for place, word in enumerate(encoding.word_ids):
                if word is not None and word != before:
                    row[place] = classes[word]
                before = word
        return self._pad([encoding.ids for encoding in found], length), told

    def encode_questions(
        self,
        questions: Sequence[str],
        contexts: Sequence[str],
        answers: Sequence[Sequence[str]],
        starts: np.ndarray,
        length: int,
    ) -> Located:
        """Returns token ids, the tokens of the answers, and places in the contexts.

        Contexts are cut; questions are not.
        """
        self._reader.enable_truncation(length, strategy="only_second")
        with reading("a question", f"It may be longer than {length} tokens."):
            pairs = list(zip(questions, contexts, strict=True))
            found = self._reader.encode_batch(pairs)
        offsets = np.zeros((len(found), length, 2), np.int32)
        spans = np.full((len(found), 2), -1, np.int32)
        for i, encoding in enumerate(found):
            for place, which in enumerate(encoding.sequence_ids):
                if which == 1:
                    offsets[i, place] = encoding.offsets[place]
            if not answers[i]:
                spans[i] = 0
                continue
            first, behind = starts[i], starts[i] + len(answers[i][0])
            begins, ends = offsets[i].T
            inside = np.flatnonzero((begins < behind) & (ends > first))
            if len(inside) and ends.max() >= behind:
                spans[i] = inside[0], inside[-1]
        return Located(self._pad([e.ids for e in found], length), spans, offsets)

    def _pad(self, rows: list[list[int]], length: int) -> Int32[np.ndarray, "n t"]:
        out = np.full((len(rows), length), self.padding_id, np.int32)
        for row, ids in zip(out, rows, strict=True):
            row[: len(ids)] = ids
        return out
