"""The tasks of a study, and the text network."""

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from flax import nnx

from kdlab.data.text import prepared
from kdlab.data.text.words import Tokens
from kdlab.models.encoders.pre_norm import PADDING, UNKNOWN, Transformer
from kdlab.study import encoder_tasks, tasks

pytestmark = pytest.mark.usefixtures("standard")


@pytest.fixture(scope="module")
def read():
    return {name: source() for name, (source, _) in tasks.TEXTS.items()}


@pytest.mark.parametrize("name", tasks.TEXTS)
def test_a_text_task_has_three_parts_that_share_no_group(name, read, monkeypatch):
    _, style = tasks.TEXTS[name]
    parts = encoder_tasks.split(read[name], style.parts)
    groups = [set(part.groups.tolist()) for part in parts]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    monkeypatch.setitem(tasks.TEXTS, name, (lambda: read[name], style))
    task = tasks.load(name)
    made = task.train, task.validation, task.test
    for part, size in zip(made, style.parts, strict=True):
        assert part.inputs.shape == (size, style.length)
        assert set(part.labels) == set(range(task.num_classes))
    # The student's labels are correct, and the same for every seed.
    rows, told = task.lesson(7)
    assert len(rows) == len(told) == style.parts[0]
    np.testing.assert_array_equal(told, task.train.labels)


def test_names_in_several_languages_are_left_out(read):
    names = [name.lower() for name in read["languages"].texts]
    assert len(set(names)) > 0.98 * len(names)  # the rest: twice in one language
    assert "burkina faso" not in names


def test_verses_are_labelled_by_their_books(read):
    verses = read["verses"]
    label = dict(zip(verses.texts, verses.labels.tolist(), strict=True))
    first = "In the beginning God created the heaven and the earth."
    assert label[first] == 0
    assert verses.num_classes == 10
    assert not any("[" in text for text in verses.texts)


def test_tokens_cut_pad_and_mark_the_unknown():
    tokens = Tokens(["a a b", "a b c"], characters=False, size=4, length=3)
    assert len(tokens) == 4
    np.testing.assert_array_equal(
        tokens(["b a", "c a b a"]), [[3, 2, PADDING], [UNKNOWN, 2, 3]]
    )


def test_images_keep_the_demos_noise_and_a_validation_part():
    task = tasks.load("mnist5k")
    assert [len(p.labels) for p in (task.train, task.validation, task.test)] == [
        3500,
        500,
        1000,
    ]
    lessons = [task.lesson(seed) for seed in (0, 1)]
    for rows, told in lessons:
        assert len(set(rows.tolist())) == 400
        assert 0.3 < np.mean(told[rows] != task.train.labels[rows]) < 0.42
    assert set(lessons[0][0]) != set(lessons[1][0])


@nnx.jit
def call(model, tokens):
    return model(tokens)


def transformer(**options):
    sizes = {"width": 8, "depth": 1, "heads": 2} | options
    return Transformer(10, 6, 3, rngs=nnx.Rngs(0), **sizes)


def test_padding_does_not_change_what_is_read():
    model = transformer(depth=2)
    text = jnp.array([[5, 3, 2, 0, 0, 0]])
    longer = Transformer(10, 9, 3, width=8, depth=2, heads=2, rngs=nnx.Rngs(0))
    nnx.update(longer.tokens, nnx.state(model.tokens))
    for name in ("blocks", "norm", "classifier"):
        nnx.update(getattr(longer, name), nnx.state(getattr(model, name)))
    positions = (
        longer.positions.embedding[...].at[:6].set(model.positions.embedding[...])
    )
    longer.positions.embedding[...] = positions
    padded = jnp.pad(text, ((0, 0), (0, 3)))
    outputs = call(model, text)
    np.testing.assert_allclose(
        outputs.logits, call(longer, padded).logits, rtol=1e-5, atol=1e-6
    )
    assert [f.shape for f in outputs.features] == [(1, 1, 6, 8)] * 2
    assert outputs.pooled.shape == (1, 8)


def test_an_empty_text_is_finite():
    empty = jnp.zeros((1, 6), jnp.int32)
    assert np.isfinite(call(transformer(), empty).logits).all()


def test_the_order_of_words_matters():
    model = transformer()
    a, b = call(model, jnp.array([[5, 3, 2, 0, 0, 0], [2, 3, 5, 0, 0, 0]])).logits
    assert not np.allclose(a, b)


class TinyReviews(tfds.core.GeneratorBasedBuilder):
    """Pairs of sentences; the labels of the test split are secret."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "sentence1": tfds.features.Text(),
            "sentence2": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["no", "yes"]),
            "idx": np.int32,
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(40, secret=False),
            "validation": self._generate_examples(10, secret=False),
            "test": self._generate_examples(10, secret=True),
        }

    def _generate_examples(self, count, *, secret):
        for i in range(count):
            words = {"sentence1": f"größe {i}", "sentence2": "yes" if i % 2 else "no"}
            yield i, words | {"label": -1 if secret else i % 2, "idx": i}


def test_texts_of_tfds_are_read_without_tensorflow(tmp_path, monkeypatch):
    builder = TinyReviews(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    train, test = prepared.load_prepared("tiny_reviews", tmp_path)
    assert sorted(train.texts)[0] == "größe 0 | no"
    assert (len(train.texts), len(test.texts)) == (40, 10)
    assert set(test.labels) == {0, 1}  # the validation split
    monkeypatch.setattr(tasks, "tfds_names", lambda: ["tiny_reviews"])
    task = tasks.load("tiny_reviews", data_dir=tmp_path)
    sizes = [len(p.labels) for p in (task.train, task.validation, task.test)]
    assert sizes == [36, 4, 10]


def test_a_wrong_name_of_a_task_is_explained():
    with pytest.raises(ValueError, match="did you mean 'languages'"):
        tasks.load("language")
    with pytest.raises(FileNotFoundError, match="no --data-dir is given"):
        tasks.load("imdb_reviews")
