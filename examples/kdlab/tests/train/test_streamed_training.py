"""Training on a data set that is decoded on the fly."""

import json

import numpy as np
import pytest
from flax import nnx

import _archives
from _students import fitted
from kdlab.data import normalize, open_dataset
from kdlab.data.feed import iterate_once
from kdlab.experiment import splits
from kdlab.experiment.make import make_config
from kdlab.experiment.networks import make_model
from kdlab.experiment.students import Students, Teacher
from kdlab.models.network import Network

pytestmark = pytest.mark.usefixtures("standard")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Makes eleven images in files that TFDS wrote, in batches of four."""
    root = tmp_path_factory.mktemp("imagenet")
    _archives.write_imagenet(root, num_train=11, num_validation=6)
    return {
        "dataset": "imagenet2012",
        "data_dir": root,
        "image_size": 8,
        "labels": None,
        "noise": 0,
        "augment": "resized_crop_flip",
        "teacher": "mlp",
        "student": "mlp",
        "teacher_epochs": 1,
        "methods": ("kd",),
        "epochs": 2,
        "batch_size": 4,
        "timing_rounds": 0,
    }


@pytest.fixture(scope="module")
def pupils(settings):
    config = make_config(checkpoint_seconds=0, **settings)
    data = open_dataset(
        config.data.dataset,
        data_dir=config.data.data_dir,
        image_size=config.data.image_size,
    )
    network = Network.of(make_model("mlp", data, nnx.Rngs(7)))
    return Students(config, Teacher(network, data))


class KilledError(Exception):
    pass


def killed_after(steps):
    def wrap(step):
        done = []

        def wrapped(*arguments):
            if len(done) == steps:
                raise KilledError
            done.append(step(*arguments))
            return done[-1]

        return wrapped

    return wrap


@pytest.mark.parametrize("steps", [2, 3, 5])  # three are an epoch
def test_it_resumes_to_the_same_end(steps, pupils, tmp_path):
    expected = fitted(pupils, tmp_path / "whole")
    with pytest.raises(KilledError):
        fitted(pupils, tmp_path / "cut", wrap=killed_after(steps))
    fitted(pupils, tmp_path / "cut")
    found = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    for ours, theirs in zip(map(json.loads, found), expected, strict=True):
        assert ours | {"seconds": 0} == theirs | {"seconds": 0}
    assert np.isfinite(expected[-1]["train/loss/distill"])


def test_class_means_take_a_pass_of_the_teacher(pupils, tmp_path):
    config = make_config(pupils.config, loss="nd", epochs=1)
    teacher, data = pupils._teacher.network, pupils._teacher.dataset
    stream = splits.full_training_split(config.data, data)
    (batch,) = iterate_once(stream, pupils.problem.layout, 16)
    vectors = teacher.outputs(normalize(batch["images"], data.mean, data.std)).pooled
    expected = np.zeros((1000, vectors.shape[-1]), np.float32)
    expected[batch["labels"][:11]] = vectors[:11]  # each image has a class of its own

    students = Students(config, pupils._teacher)
    params = students.state(students.plan("kd"), 0).rest["adapter"]
    np.testing.assert_allclose(params["means"][...], expected, rtol=1e-5, atol=1e-6)
    (record,) = fitted(students, tmp_path)
    assert np.isfinite(record["train/loss/distill"])


def test_labels_are_read_once(pupils, tmp_path, monkeypatch):
    config, data = make_config(pupils.config, runs=tmp_path), pupils.data(0)
    labels = splits.read_all_labels(data, config.data, config.execution.runs)
    assert labels.tolist() == [data.source[i].label for i in range(11)]
    monkeypatch.setattr(type(data.source), "__getitem__", None)
    np.testing.assert_array_equal(
        splits.read_all_labels(data, config.data, config.execution.runs), labels
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": 0.4}, "--labels None --noise 0"),
        ({"labels": 100}, "--labels None --noise 0"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(change, message):
    whole = {"dataset": "stream:tiny_imagenet", "labels": None, "noise": 0}
    make_config(**whole)
    with pytest.raises(ValueError, match=message):
        make_config(**(whole | change))
