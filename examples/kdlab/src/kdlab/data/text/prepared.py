"""Reads sets of texts that TFDS prepared, without TensorFlow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdlab.basics.hint import did_you_mean
from kdlab.basics.reading import UserError, reading
from kdlab.data.sources.errors import prepare_command
from kdlab.data.sources.tfds_source import (
    PREPARE,
    find_prepared,
    open_split,
    read_info,
)
from kdlab.data.text.published import PUBLISHED, Published
from kdlab.data.text.records import (
    Examples,
    Questions,
    Tagged,
    Texts,
    number_groups,
)

HIGHEST_SIMILARITY = 5.0  # of glue/stsb


class Loaded(NamedTuple):
    """Examples of a set.

    Attributes:
        train: The training examples.
        validation: Those for choosing settings; None if the set has none to spare.
        test: Those for the test.
    """

    train: Examples
    validation: Examples | None
    test: Examples


def load_published(name: str, data_dir: Path | None) -> Loaded:
    """Loads a set of :data:`PUBLISHED`. Examples without a label are left out.

    Args:
        name: Its name.
        data_dir: Root of the prepared sets.

    Raises:
        FileNotFoundError: If the set is not prepared; the message says how to do it.
        ValueError: If it lacks a field or a split.
    """
    spec = PUBLISHED[name]
    folder = _find(name.split(":")[0], data_dir)
    wanted = ("train", spec.validation, spec.test)
    parts = [None if split is None else list(_read(folder, split)) for split in wanted]
    features = dict(read_info(folder).features.items())
    for field in (*spec.texts, spec.label):
        if field not in features:
            hint = did_you_mean(field, features)
            raise UserError(
                f"{folder} has no field {field!r}; {hint}it has: {', '.join(features)}."
            )
    make = {
        "class": _classes,
        "similarity": _similarities,
        "tags": _tags,
        "answers": _answers,
    }[spec.kind]
    made: Any = make(spec, features[spec.label], parts)
    for split, part in zip(wanted, made, strict=True):
        if part is not None and not len(part.groups):
            raise UserError(f"{folder}: no example of the split {split} has a label.")
    return Loaded(*made)


def load_prepared(name: str, data_dir: Path | None) -> tuple[Texts, Texts]:
    """Loads another set that has one class per example; all its texts are joined.

    If the test split has no labels, the validation split takes its place.

    Args:
        name: TFDS name, optionally with a config.
        data_dir: Root of the prepared sets.

    Returns:
        The training and the test texts.

    Raises:
        FileNotFoundError: If the set is not prepared; the message says how to do it.
        ValueError: If it does not hold texts with one class each.
    """
    import tensorflow_datasets as tfds

    folder = _find(name, data_dir)
    info = read_info(folder)
    features = dict(info.features.items())
    # Features read from disk are in no fixed order.
    fields = sorted(k for k, f in features.items() if isinstance(f, tfds.features.Text))
    classes = [
        k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)
    ]
    if not fields or len(classes) != 1:
        raise ValueError(
            f"{folder} does not hold texts with one class each: its features are "
            f"{', '.join(features)}"
        )
    parts = []
    for split in ("train", "test", "validation"):
        rows = list(_read(folder, split)) if split in info.splits else []
        rows = [row for row in rows if row[classes[0]] >= 0]
        texts = [" | ".join(_text(row[field]) for field in fields) for row in rows]
        labels = np.array([row[classes[0]] for row in rows], np.int32)
        count = features[classes[0]].num_classes
        parts.append(Texts(texts, labels, number_groups(list(range(len(rows)))), count))
    train, test, validation = parts
    test = test if test.texts else validation
    if not train.texts or not test.texts:
        raise ValueError(f"{folder} lacks a labelled split for training or test")
    return train, test


def _find(name: str, data_dir: Path | None) -> Path:
    folder = find_prepared(name, data_dir)
    if folder is None:
        where = f"not found in {data_dir}" if data_dir else "no --data-dir is given"
        raise FileNotFoundError(
            f"{name}: {where}, expected DATA/{name}/VERSION/dataset_info.json. To "
            f"prepare it, with TensorFlow and network access: {prepare_command(name)}"
        )
    return folder


def _read(folder: Path, split: str) -> Iterator[dict[str, Any]]:
    """Yields the examples of a split, without TensorFlow."""
    info = read_info(folder)
    records = open_split(folder, info, split)
    for i in range(len(records)):
        with reading(f"text {i} of the split {split} of {folder}", PREPARE):
            yield info.features.deserialize_example_np(records[i])


Rows = list[dict[str, Any]] | None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _classes(spec: Published, feature: Any, parts: list[Rows]) -> list[Texts | None]:
    names = getattr(feature, "num_classes", None)
    # Numbers without names, such as intents: the classes are those of the training set.
    known = sorted({int(row[spec.label]) for row in parts[0] or []})
    number = {label: i for i, label in enumerate(range(names) if names else known)}
    out: list[Texts | None] = []
    for rows in parts:
        kept = [row for row in rows or [] if int(row[spec.label]) in number]
        labels = np.array([number[int(row[spec.label])] for row in kept], np.int32)
        out.append(None if rows is None else _pairs(spec, kept, labels, len(number)))
    return out


def _similarities(
    spec: Published, feature: Any, parts: list[Rows]
) -> list[Texts | None]:
    """Reads a similarity from 0 to 5 as the probability of "similar"."""
    del feature
    out: list[Texts | None] = []
    for rows in parts:
        kept = [row for row in rows or [] if row[spec.label] >= 0]
        share = np.array([row[spec.label] for row in kept]) / HIGHEST_SIMILARITY
        labels = np.stack([1 - share, share], axis=-1).astype(np.float32)
        out.append(None if rows is None else _pairs(spec, kept, labels, 2))
    return out


def _pairs(
    spec: Published, rows: list[dict[str, Any]], labels: np.ndarray, count: int
) -> Texts:
    fields = [[_text(row[field]) for row in rows] for field in spec.texts]
    groups = np.arange(len(rows), dtype=np.int32)
    return Texts(
        fields[0], labels, groups, count, fields[1] if len(fields) > 1 else None
    )


def _tags(spec: Published, feature: Any, parts: list[Rows]) -> list[Tagged | None]:
    names = tuple(feature.feature.names)
    return [
        None
        if rows is None
        else Tagged(
            [[_text(word) for word in row[spec.texts[0]]] for row in rows],
            [np.asarray(row[spec.label], np.int32) for row in rows],
            np.arange(len(rows), dtype=np.int32),
            names,
        )
        for rows in parts
    ]


def _answers(
    spec: Published, feature: Any, parts: list[Rows]
) -> list[Questions | None]:
    del feature
    out: list[Questions | None] = []
    for rows in parts:
        if rows is None:
            out.append(None)
            continue
        question, context = ([_text(row[f]) for row in rows] for f in spec.texts)
        answers = [[_text(a) for a in row[spec.label]["text"]] for row in rows]
        first = [list(row[spec.label]["answer_start"])[:1] or [-1] for row in rows]
        starts = np.array([start for (start,) in first], np.int32)
        out.append(
            Questions(question, context, answers, starts, number_groups(context))
        )
    return out
