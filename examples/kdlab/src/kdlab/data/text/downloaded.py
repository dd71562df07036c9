"""Labelled texts inside archives that pip and apt download.

The archives are read as they are, without installing or unpacking anything.
"""

import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kdlab.basics.reading import reading
from kdlab.data.sources.errors import missing_files
from kdlab.data.text.records import Tagged, Texts, number_groups

MOVIES = (
    "vaderSentiment-3.3.2.tar.gz",
    "pip download --no-deps --no-binary :all: vaderSentiment==3.3.2 --dest DATA",
)
GLOSSES = (
    "wordnet-base_*_all.deb",
    "(cd DATA && apt-get download wordnet-base), or install it: apt-get install "
    "wordnet-base",
)
TURKISH = (
    "turkish_treebanks-1.0.0-py3-none-any.whl",
    "pip download --no-deps turkish-treebanks==1.0.0 --dest DATA",
)
_INSTALLED = Path("/usr/share/wordnet")

NOUNS = (
    *("tops", "act", "animal", "artifact", "attribute", "body", "cognition"),
    *("communication", "event", "feeling", "food", "group", "location", "motive"),
    *("object", "person", "phenomenon", "plant", "possession", "process", "quantity"),
    *("relation", "shape", "state", "substance", "time"),
)
"""Classes of nouns in WordNet, in the order of its files 03 to 28."""


def movies(data_dir: Path | None) -> Texts:
    """Loads sentences of movie reviews, labelled as negative (0) or positive (1).

    Fifteen people rated each sentence from -4 to 4. The sign of their mean is the
    label, and ``(mean + 4) / 8`` is kept as their probability of the positive class.
    Sentences with a mean of 0 are left out. Equal sentences form a group.

    Args:
        data_dir: Folder of the archive (MIT).

    Raises:
        FileNotFoundError: If it is not there; the message says how to get it.

    References:
        Hutto and Gilbert, `VADER <https://doi.org/10.1609/icwsm.v8i1.14550>`_, ICWSM
        2014
    """
    path = _find("movies", MOVIES, data_dir)
    with reading(path), tarfile.open(path) as outer:
        inner = _member(outer, "hutto_ICWSM_2014.tar.gz")
        with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
            table = _member(archive, "movieReviewSnippets_GroundTruth.txt")
        rows = [line.split("\t") for line in table.decode("utf-8-sig").splitlines()]
        ratings = np.array([float(row[1]) for row in rows])
        texts = [row[2].strip() for row in rows]
    kept = np.flatnonzero(ratings)
    share = (ratings[kept] + 4) / 8
    texts = [texts[row] for row in kept]
    return Texts(
        texts,
        (ratings[kept] > 0).astype(np.int32),
        number_groups([text.lower() for text in texts]),
        2,
        human=np.stack([1 - share, share], axis=-1).astype(np.float32),
    )


def glosses(data_dir: Path | None) -> Texts:
    """Loads definitions of nouns in WordNet, labelled by field of meaning (26).

    Quotations are cut off. Equal definitions form a group.

    Args:
        data_dir: Folder of the Debian package; not needed if it is installed.

    Raises:
        FileNotFoundError: If it is not there; the message says how to get it.

    References:
        `WordNet <https://wordnet.princeton.edu>`_, whose licence permits any use
    """
    if (_INSTALLED / "data.noun").is_file():
        text = (_INSTALLED / "data.noun").read_text()
    else:
        path = _find("glosses", GLOSSES, data_dir)
        with reading(path):
            package = _read_ar(path.read_bytes())
            data = next(x for name, x in package if name.startswith("data.tar"))
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                text = _member(archive, "data.noun").decode()
    rows = []
    for line in text.splitlines():
        if not line.startswith(" "):  # the licence
            fields, gloss = line.split(" | ", 1)
            rows.append((gloss.split(';  "')[0].split('; "')[0].strip(), fields))
    texts = [gloss for gloss, _ in rows]
    labels = [int(fields.split()[1]) - 3 for _, fields in rows]
    return Texts(texts, np.array(labels, np.int32), number_groups(texts), len(NOUNS))


def turkish(data_dir: Path | None) -> Tagged:
    """Loads Turkish sentences from the Web and Wikipedia with parts of speech (14).

    A word may consist of several inflectional groups; its class is that of the last
    one, as which it takes part in the sentence.

    Args:
        data_dir: Folder of the wheel (Apache-2.0), which need not be installed.

    Raises:
        FileNotFoundError: If it is not there; the message says how to get it.

    References:
        `Turkish Treebanks <https://pypi.org/project/turkish-treebanks>`_
    """
    path = _find("turkish", TURKISH, data_dir)
    with reading(path), zipfile.ZipFile(path) as archive:
        blocks = [
            block
            for name in ("data/web.conllu", "data/wiki.conllu")
            for block in archive.read(name).decode().strip().split("\n\n")
        ]
        sentences = [list(_read_words(block)) for block in blocks]
    names = tuple(sorted({tag for words in sentences for _, tag in words}))
    number = {tag: i for i, tag in enumerate(names)}
    words = [[word for word, _ in sentence] for sentence in sentences]
    labels = [np.array([number[tag] for _, tag in s], np.int32) for s in sentences]
    groups = number_groups([" ".join(sentence).lower() for sentence in words])
    return Tagged(words, labels, groups, names)


def _read_words(block: str) -> Iterator[tuple[str, str]]:
    """Yields the words of a sentence in CoNLL-U and their parts of speech."""
    form = ""
    for line in block.splitlines():
        if line and line[0] != "#":
            columns = line.split("\t")
            form += columns[1]
            if columns[7] != "ig":  # the last group of a word
                yield form, columns[3]
                form = ""


def _find(task: str, source: tuple[str, str], data_dir: Path | None) -> Path:
    pattern, how = source
    found = sorted(data_dir.glob(pattern)) if data_dir else []
    if not found:
        raise missing_files(task, files=[pattern], folder=data_dir, how=how)
    return found[-1]


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    for member in archive:
        if member.isfile() and member.name.rsplit("/", 1)[-1] == name:
            content = archive.extractfile(member)
            if content is not None:
                return content.read()
    raise ValueError(f"it holds no {name}")


def _read_ar(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields names and contents of the members of an ``ar`` archive (``.deb``)."""
    if not content.startswith(b"!<arch>\n"):
        raise ValueError("it is not a Debian package")
    place = 8
    while place < len(content):
        header = content[place : place + 60]
        name = header[:16].decode().strip().rstrip("/")
        size = int(re.sub(rb"\D", b"", header[48:58]))
        yield name, content[place + 60 : place + 60 + size]
        place += 60 + size + size % 2
