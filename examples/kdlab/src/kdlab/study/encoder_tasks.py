"""Text tasks for students of several sizes, with BERT-like encoders."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab.basics.reading import UserError
from kdlab.data.text import downloaded, packaged, prepared
from kdlab.data.text.published import PUBLISHED, Published
from kdlab.data.text.records import Examples, Questions, Tagged, Texts
from kdlab.data.text.tokenizer import VOCABULARIES, Tokenizer
from kdlab.models import Model, Outputs, encoders
from kdlab.models.state_dicts import read_torch
from kdlab.study.networks import Networks, count_heads, parse_size
from kdlab.study.scores import Answers, choose_metrics
from kdlab.study.task import (
    Part,
    Task,
    Training,
    make_first_lesson,
    make_full_lesson,
)

SPLIT_SEED = 0  # part of the definition of the tasks
E = TypeVar("E", bound=Examples)


class Offline(NamedTuple):
    """A task whose texts need no preparation.

    Attributes:
        read: Reads them, given the folder of the archives.
        vocabulary: File of the vocabulary.
        length: Number of tokens to which texts are cut.
        metrics: Metrics, the one that is searched for first.
    """

    read: Callable[[Path | None], Examples]
    vocabulary: str
    length: int
    metrics: tuple[str, ...] = ("accuracy",)


OFFLINE: dict[str, Offline] = {
    "movies": Offline(
        downloaded.movies, "english.json", 32, ("accuracy", "human_spearman")
    ),
    "glosses": Offline(downloaded.glosses, "english.json", 24),
    "verse_pairs": Offline(lambda _: packaged.verse_pairs(), "english.json", 96),
    "turkish": Offline(downloaded.turkish, "turkish.json", 24),
    "languages": Offline(lambda _: packaged.languages(), "names.json", 12),
    "verses": Offline(lambda _: packaged.verses(), "english.json", 48),
}
"""Tasks that are read from packages and archives, by name."""

SIZES = (6144, 1024, 2048)
"""Largest numbers of training, validation and test examples of an offline task."""
LESSON = 2048
"""Training examples of an offline task that the student sees."""

TEACHER = Training(5, 32, "adamw", 1e-3, 1e-2, 0.1)
TUNED_TEACHER = Training(3, 32, "adamw", 1e-4, 1e-2, 0.1)  # from given weights
STUDENT = Training(2, 32, "adamw", 2e-3, 1e-2, 0.1)


class AnswerFinder(encoders.SpanClassifier):
    """A span classifier with logits ``[b, 2, t]`` over the tokens of the second text.

    The first token of the input, which says that there is no answer, is a choice as
    well; all others have the logit ``-inf``.
    """

    def __call__(self, x: jax.Array, types: jax.Array | None = None) -> Outputs:
        """Runs the network on token ids ``[b, t]``."""
        outputs = super().__call__(x, types)
        separator = self.encoder.config.separator_id
        inside = (self.encoder.find_segments(x) == 1) & (x != separator)
        allowed = inside.at[:, 0].set(True)[:, None]
        logits = jnp.moveaxis(outputs.logits, -1, -2)
        return outputs._replace(logits=jnp.where(allowed, logits, -jnp.inf))


def load_offline(name: str, data_dir: Path | None, networks: Networks) -> Task:
    """Makes a task of :data:`OFFLINE`.

    Args:
        name: Its name.
        data_dir: Folder of the archives.
        networks: Sizes of the networks.

    Raises:
        FileNotFoundError: If an archive is missing; the message says how to get it.
        ModuleNotFoundError: If a package with texts is not installed.
    """
    task = OFFLINE[name]
    parts = split(task.read(data_dir), SIZES)
    vocabulary = VOCABULARIES / task.vocabulary
    made = _make(name, parts, vocabulary, task.length, task.metrics, networks)
    return dataclasses.replace(made, lesson=make_first_lesson(made.train, LESSON))


def load_public(name: str, data_dir: Path | None, networks: Networks) -> Task:
    """Makes a task of a set that TFDS prepared.

    Args:
        name: A key of :data:`~kdlab.data.text.published.PUBLISHED`, or another set of
            texts with one class each.
        data_dir: Root of the prepared sets.
        networks: Sizes of the networks.

    Raises:
        FileNotFoundError: If the set is not prepared; the message says how to do it.
    """
    spec = PUBLISHED.get(name)
    validation: Examples | None = None
    if spec is None:
        train, test = prepared.load_prepared(name, data_dir)
        spec = Published(("text",))
    else:
        train, validation, test = prepared.load_published(name, data_dir)
    if validation is None:
        held = max(1, len(train.groups) // 10)
        train, validation, _ = split(train, (len(train.groups) - held, held, 0))
    parts = (train, validation, test)
    vocabulary = VOCABULARIES / "english.json"
    return _make(name, parts, vocabulary, spec.length, spec.metrics, networks)


def split(source: E, sizes: tuple[int, int, int]) -> tuple[E, E, E]:
    """Splits examples at random into parts of at most these sizes.

    Groups stay whole.
    """
    rng = np.random.default_rng(SPLIT_SEED)
    groups = rng.permutation(np.unique(source.groups))
    bounds = np.round(np.cumsum(sizes) / sum(sizes) * len(groups)).astype(int)
    parts: list[Any] = []
    for chosen, size in zip(np.split(groups, bounds[:-1]), sizes, strict=True):
        rows = rng.permutation(np.flatnonzero(np.isin(source.groups, chosen)))[:size]
        parts.append(source.take(rows))
    return parts[0], parts[1], parts[2]


def _make(
    name: str,
    parts: tuple[Examples, Examples, Examples],
    vocabulary: Path,
    length: int,
    metrics: tuple[str, ...],
    networks: Networks,
) -> Task:
    folder = networks.teacher_weights
    tokenizer = Tokenizer(folder or vocabulary)
    train, validation, test = (_encode(part, tokenizer, length) for part in parts)
    classes, tags = _classes(parts[0])

    def configure(size: str) -> encoders.EncoderConfig:
        depth, width = parse_size(size)
        return encoders.bert(
            depth,
            width,
            heads=count_heads(width),
            vocabulary=tokenizer.size,
            positions=length,
            padding_id=tokenizer.padding_id,
            separator_id=tokenizer.separator_id,
        )

    def network(config: encoders.EncoderConfig) -> Callable[[nnx.Rngs], Model]:
        # Dropout would need random streams among the parameters.
        still = config.without_dropout()
        if isinstance(parts[0], Questions):
            return lambda rngs: AnswerFinder(still, rngs=rngs)
        if isinstance(parts[0], Tagged):
            return lambda rngs: encoders.TokenClassifier(still, classes, rngs=rngs)
        return lambda rngs: encoders.SequenceClassifier(still, classes, rngs=rngs)

    start = None
    if folder is None:
        teacher = network(configure(networks.teacher))
    else:
        teacher = network(_pretrained(folder, tokenizer))
        start = _read_weights(folder, teacher)
    return Task(
        name=name,
        train=train,
        validation=validation,
        test=test,
        num_classes=classes,
        teacher=teacher,
        student=network(configure(networks.student)),
        teacher_training=TEACHER if folder is None else TUNED_TEACHER,
        student_training=STUDENT,
        lesson=make_full_lesson(train),
        metrics=choose_metrics(metrics, tags),
        teacher_start=start,
    )


def _pretrained(folder: Path, tokenizer: Tokenizer) -> encoders.EncoderConfig:
    config = encoders.read_config(folder)
    if tokenizer.size > config.vocabulary:
        raise UserError(
            f"{folder}: tokenizer.json has {tokenizer.size} tokens, but the model "
            f"embeds {config.vocabulary}; they belong to different checkpoints."
        )
    return dataclasses.replace(
        config,
        padding_id=tokenizer.padding_id,
        separator_id=tokenizer.separator_id,
    )


def _read_weights(folder: Path, make: Callable[[nnx.Rngs], Model]) -> nnx.State:
    model = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    file = folder / "model.safetensors"
    return encoders.from_torch(model, read_torch(file), fresh_head=True, name=str(file))


def _classes(examples: Examples) -> tuple[int, tuple[str, ...]]:
    """Returns the number of classes, and their names if there are tags."""
    if isinstance(examples, Texts):
        return examples.num_classes, ()
    if isinstance(examples, Tagged):
        return len(examples.names), examples.names
    return 2, ()  # start and end


def _encode(examples: Examples, tokenizer: Tokenizer, length: int) -> Part:
    if isinstance(examples, Texts):
        ids = tokenizer.encode(examples.texts, examples.seconds, length)
        return Part(ids, examples.labels, examples.human)
    if isinstance(examples, Tagged):
        return Part(*tokenizer.encode_words(examples.words, examples.labels, length))
    found = tokenizer.encode_questions(
        examples.questions,
        examples.contexts,
        examples.answers,
        examples.starts,
        length,
    )
    facts = Answers(examples.contexts, examples.answers, found.offsets)
    return Part(found.ids, found.spans, facts=facts)
