"""Public sets of texts are read with their own fields, splits and labels."""

import shutil

import numpy as np
import pytest

from _text_sets import SHAPES, write
from kdlab.data.text import prepared
from kdlab.data.text.published import PUBLISHED, Published


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    for name in SHAPES:
        write(name, folder)
    return folder


def sizes(loaded):
    return [None if part is None else len(part.groups) for part in loaded]


def test_every_published_set_has_a_copy():
    assert {name.split(":")[0] for name in PUBLISHED} == SHAPES.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_set_is_read_with_its_own_fields_and_splits(name, root):
    loaded = prepared.load_published(name, root)
    spec, (_, splits) = PUBLISHED[name], SHAPES[name.split(":")[0]]
    if name == "snli":  # examples without a gold label are left out of every split
        assert sizes(loaded) == [10, 4, 4]
    else:
        wanted = [spec.validation and splits[spec.validation], splits[spec.test]]
        assert sizes(loaded) == [splits["train"], *wanted]
    first = loaded.test
    if spec.kind in ("class", "similarity"):
        assert first.texts[0] == f"{spec.texts[0]} 0"
        second = None if len(spec.texts) == 1 else [f"{spec.texts[1]} 0"]
        assert second == (first.seconds and first.seconds[:1])
        hard = first.labels if first.labels.ndim == 1 else np.zeros(1)
        assert hard.min() >= 0


def test_labels_are_those_of_the_set(root):
    def labels(name):
        return prepared.load_published(name, root).train.labels

    assert labels("bool_q").tolist()[:4] == [0, 1, 0, 1]
    assert labels("trec").tolist()[5:8] == [5, 0, 1]
    assert labels("trec:fine").tolist()[5:8] == [5, 6, 7]
    assert labels("glue/mnli").tolist()[:4] == [0, 1, 2, 0]
    intents = prepared.load_published("clinc_oos", root).train
    assert intents.labels.tolist()[:4] == [0, 1, 2, 0]  # 0, 10 and 20
    assert intents.num_classes == 3 and intents.seconds is None  # no name of an intent
    np.testing.assert_allclose(labels("glue/stsb")[5], [0, 1])  # a similarity of 5
    np.testing.assert_allclose(labels("glue/stsb")[2], [0.6, 0.4])
    conll = prepared.load_published("conll2003", root).train
    assert conll.words[0] == ["New", "York", "wins"]
    assert [conll.names[i] for i in conll.labels[0]] == ["B-LOC", "I-LOC", "O"]
    squad = prepared.load_published("squad/v2.0", root).train
    assert squad.answers[3:5] == [["context"], []]
    assert squad.starts[3:5].tolist() == [0, -1]
    assert squad.contexts[3] == "context 3"


def test_a_set_without_labels_or_fields_is_explained(root, monkeypatch):
    spec = PUBLISHED["glue/cola"]
    changed = {
        "glue/cola": Published(("sentence",), test="test"),
        "glue/sst2": Published(("sentences",)),
        "glue/rte": Published(spec.texts, test="dev"),
    }
    messages = ["of the split test has a label", "did you mean 'sentence'", "no split"]
    monkeypatch.setattr(prepared, "PUBLISHED", changed)
    for name, message in zip(changed, messages, strict=True):
        with pytest.raises(ValueError, match=message):
            prepared.load_published(name, root)


def test_all_of_glue_is_there():
    tasks = ["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]
    assert {f"glue/{task}" for task in tasks} <= PUBLISHED.keys()


def test_a_split_with_missing_records_is_refused(root, tmp_path):
    """As for images: text and boxes open their records by the same function."""
    shutil.copytree(root / "trec", tmp_path / "trec")
    (train,) = tmp_path.glob("trec/*/trec-train*")
    (test,) = tmp_path.glob("trec/*/trec-test*")
    shutil.copy(test, train)
    with pytest.raises(ValueError, match="holds 5 examples of the split 'train', exp"):
        prepared.load_published("trec", tmp_path)
