"""Texts from packages and archives, and their tokens."""

import json

import numpy as np
import pytest

import _text_archives
from kdlab.data.text import downloaded, packaged, vocabulary
from kdlab.data.text.tokenizer import IGNORED, VOCABULARIES, Tokenizer


@pytest.fixture
def archives(tmp_path, monkeypatch):
    _text_archives.write_all(tmp_path)
    monkeypatch.setattr(downloaded, "_INSTALLED", tmp_path / "absent")
    return tmp_path


def test_movies_have_the_sign_of_the_ratings_and_the_opinion_of_people(archives):
    movies = downloaded.movies(archives)
    assert movies.texts == ["A fine film.", "Dull, and far too long.", "a fine film."]
    assert movies.labels.tolist() == [1, 0, 0]  # without the mean of 0
    np.testing.assert_allclose(movies.human, [[0.2, 0.8], [0.9, 0.1], [0.6, 0.4]])
    assert movies.groups.tolist() == [0, 1, 0]  # equal but for case


def test_glosses_are_labelled_by_field_and_lose_their_quotations(archives, monkeypatch):
    glosses = downloaded.glosses(archives)
    assert glosses.texts == [
        "that which is perceived",
        "a domestic animal; of many breeds",
        "the middle of the day",
    ]
    assert [downloaded.NOUNS[i] for i in glosses.labels] == ["tops", "animal", "time"]
    assert glosses.num_classes == 26
    # An installed package is used without a folder.
    (archives / "data.noun").write_text(_text_archives.NOUNS)
    monkeypatch.setattr(downloaded, "_INSTALLED", archives)
    assert downloaded.glosses(None).texts == glosses.texts


def test_a_turkish_word_has_the_class_of_its_last_group(archives):
    turkish = downloaded.turkish(archives)
    assert turkish.words == [["Gösterilmeyen", "sorular", "."], ["Bu", "ne", "?"]]
    tags = [[turkish.names[i] for i in row] for row in turkish.labels]
    assert tags == [["ADJ", "NOUN", "PUNCT"], ["PRON", "PRON", "PUNCT"]]


@pytest.mark.parametrize(
    ("read", "name", "command"),
    [
        ("movies", "vaderSentiment-3.3.2.tar.gz", "pip download --no-deps --no-binary"),
        ("glosses", "wordnet-base_*_all.deb", "apt-get download wordnet-base"),
        ("turkish", "turkish_treebanks-1.0.0", "pip download --no-deps turkish-tree"),
    ],
)
def test_a_missing_archive_says_how_to_get_it_and_where_to_put_it(
    read, name, command, tmp_path, monkeypatch
):
    monkeypatch.setattr(downloaded, "_INSTALLED", tmp_path / "absent")
    for folder, where in ((tmp_path, str(tmp_path)), (None, "--data-dir")):
        with pytest.raises(FileNotFoundError) as error:
            getattr(downloaded, read)(folder)
        for part in (f"{read}: put {name}", command, where):
            assert part in str(error.value)


def test_a_damaged_archive_is_named(archives):
    for path in archives.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for read in (downloaded.movies, downloaded.glosses, downloaded.turkish):
        with pytest.raises(ValueError, match=r"cannot be read: .*again"):
            read(archives)


def test_other_verses_of_a_pair_are_alike_but_not_the_same(monkeypatch):
    first = ["the king went out", "the queen came in", "a sheep", "same in both"]
    second = ["the king did go out", "the queen did come in", "one sheep", first[3]]
    monkeypatch.setattr(packaged, "_two_translations", lambda: (first, second))
    pairs = packaged.verse_pairs()
    assert "same in both" not in pairs.texts and len(pairs.texts) == 3
    for one, other, label in zip(pairs.texts, pairs.seconds, pairs.labels, strict=True):
        assert (second[first.index(one)] == other) == label
    assert set(pairs.labels) == {0, 1}
    np.testing.assert_array_equal(
        packaged._most_alike(first, second, np.array([0, 1])), [1, 3]
    )


# Tokens


@pytest.fixture(scope="module")
def english():
    return Tokenizer(VOCABULARIES / "english.json")


@pytest.mark.parametrize("name", ["english", "turkish", "names"])
def test_the_kept_vocabularies_have_berts_special_tokens(name):
    record = json.loads((VOCABULARIES / f"{name}.json").read_text())
    vocabulary_of = record["model"]["vocab"]
    assert [vocabulary_of[token] for token in vocabulary.SPECIAL] == [0, 1, 2, 3, 4]
    assert record["normalizer"]["lowercase"] == (name == "english")
    tokenizer = Tokenizer(VOCABULARIES / f"{name}.json")
    assert (tokenizer.padding_id, tokenizer.separator_id) == (0, 3)
    assert tokenizer.size == (2000 if name == "names" else 4000)


def test_texts_and_pairs_are_framed_cut_and_padded(english):
    single = english.encode(["A film", "a film " * 20], None, 8)
    assert single.shape == (2, 8) and single.dtype == np.int32
    assert single[0, 0] == 2 and single[0, 3] == 3 and not single[0, 4:].any()
    assert single[1, -1] == 3  # the separator survives
    pair = english.encode(["A film"], ["the film " * 20], 12)
    assert (pair == 3).sum() == 2 and pair[0, -1] == 3
    np.testing.assert_array_equal(pair[0, :4], single[0, :4])


def test_the_first_token_of_a_word_has_its_label(english):
    words = [["Unbelievableness", "film", "so-so"]]
    ids, labels = english.encode_words(words, [np.array([5, 6, 7])], 16)
    assert labels[labels != IGNORED].tolist() == [5, 6, 7]
    places = np.flatnonzero(labels[0] != IGNORED)
    assert places[0] == 1 and places[1] > 2  # the first word has several tokens
    assert labels[0, 0] == IGNORED and ids.shape == labels.shape
    short, told = english.encode_words(words, [np.array([5, 6, 7])], 4)
    assert short[0, -1] == 3 and told[0].tolist()[-1] == IGNORED


def test_answers_are_located_in_tokens_and_found_again(english):
    context = "The river Seine flows through Paris, the capital."
    answers = [["Seine flows"], ["Paris"], []]
    starts = np.array([10, 30, -1])
    found = english.encode_questions(["What?"] * 3, [context] * 3, answers, starts, 32)
    assert found.spans[2].tolist() == [0, 0]
    for i in range(2):
        first, last = found.spans[i]
        start, end = found.offsets[i, first, 0], found.offsets[i, last, 1]
        assert context[start:end] == answers[i][0]
    cut = english.encode_questions(["What?"] * 3, [context] * 3, answers, starts, 9)
    assert cut.spans[1].tolist() == [-1, -1]  # behind the end


def test_a_vocabulary_can_be_trained_and_read(tmp_path):
    texts = ["ein kleiner Test", "noch ein Test"] * 3
    vocabulary.train(texts, tmp_path / "v.json", size=60, lowercase=False)
    tokenizer = Tokenizer(tmp_path / "v.json")
    assert tokenizer.size <= 60
    assert 1 not in tokenizer.encode(["ein Test"], None, 12)  # no unknown token


def test_a_tokenizer_of_another_family_is_read_from_its_folder(tmp_path):
    """Byte-level BPE with the special tokens of RoBERTa."""
    from tokenizers import Tokenizer as Reader
    from tokenizers import models, pre_tokenizers, processors, trainers

    made = Reader(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, show_progress=False
    )
    made.train_from_iterator(["a film and a book"], trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    made.enable_padding(length=50)  # as some checkpoints ask for
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path)
    assert (tokenizer.padding_id, tokenizer.separator_id) == (1, 2)
    ids = tokenizer.encode(["a film"], ["a book"], 30)[0]
    assert ids[0] == 0 and (ids == 2).sum() == 3 and ids[-1] == 1


def test_a_file_that_is_no_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json cannot be read"):
        Tokenizer(tmp_path)
