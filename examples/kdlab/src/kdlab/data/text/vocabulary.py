"""Trains the WordPiece vocabularies of the offline tasks.

Two trainings on the same texts differ in some tokens and most ids, so the files are
kept. They were written, each once, by::

    python -m kdlab.data.text.vocabulary english.json --tasks movies glosses \
        verse_pairs --data-dir DATA
    python -m kdlab.data.text.vocabulary turkish.json --tasks turkish --no-lowercase \
        --data-dir DATA
    python -m kdlab.data.text.vocabulary names.json --tasks languages --size 2000 \
        --no-lowercase --data-dir DATA
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import tyro

from kdlab.data.text import downloaded, packaged
from kdlab.data.text.records import Tagged, Texts

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Special tokens; their ids are 0 to 4."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Train a vocabulary and write it as the JSON of the package tokenizers."""

    path: tyro.conf.Positional[Path]
    """The file to write."""
    tasks: tuple[str, ...] = ("movies",)
    """Tasks whose texts are read, without their labels."""
    size: int = 4000
    """Number of tokens."""
    lowercase: bool = True
    """Whether to remove case and accents."""
    data_dir: Path | None = None
    """Folder of the archives."""


def train(texts: Sequence[str], path: Path, *, size: int, lowercase: bool) -> None:
    """Trains a WordPiece vocabulary as BERT uses it, and writes it.

    Args:
        texts: The texts.
        path: The file to write.
        size: Number of tokens.
        lowercase: Whether to remove case and accents.
    """
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    path.write_text(made.to_str(), encoding="utf-8")


def _read(task: str, data_dir: Path | None) -> Iterator[str]:
    local = getattr(packaged, task, None)
    source = local() if local else getattr(downloaded, task)(data_dir)
    if isinstance(source, Tagged):
        yield from (" ".join(words) for words in source.words)
    elif isinstance(source, Texts):
        yield from source.texts
        yield from source.seconds or ()


if __name__ == "__main__":
    settings = tyro.cli(Settings)
    texts = [text for task in settings.tasks for text in _read(task, settings.data_dir)]
    train(texts, settings.path, size=settings.size, lowercase=settings.lowercase)
