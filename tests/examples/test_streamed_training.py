"""Training on a streamed data set, and with a teacher that is asked once."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from examples.distill import experiment
from examples.distill.config import Config
from examples.distill.data import load
from examples.distill.kd_losses import LOSSES
from examples.distill.remembered import is_valid
from examples.distill.students import Students
from examples.distill.teachers import get_teacher
from tests.examples import _archives

pytestmark = pytest.mark.usefixtures("standard")

SMALL = {
    "teacher": "mlp",
    "student": "mlp",
    "teacher_epochs": 1,
    "methods": ("kd",),
    "seeds": 1,
    "epochs": 2,
    "batch_size": 4,
    "timing_rounds": 0,
}


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    _archives.write_imagenet(root, num_train=11, num_validation=6)
    return root


def result(config):
    path = config.directory / "kd" / "seed0" / "result.json"
    return {k: v for k, v in json.loads(path.read_text()).items() if k != "seconds"}


def test_a_streamed_training_resumes_to_the_same_end(imagenet, tmp_path, monkeypatch):
    settings = SMALL | {
        "dataset": "imagenet2012",
        "data_dir": imagenet,
        "image_size": 16,
        "labels": None,
        "noise": 0,
        "augment": "resized_crop_flip",
        "runs": tmp_path,
    }
    whole = Config(name="whole", **settings)
    experiment.run(whole, Console(quiet=True))
    cut = Config(name="cut", checkpoint_seconds=0, **settings)

    class KilledError(Exception):
        pass

    def one_epoch(start, *_):
        next(start())
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "show_run", one_epoch)
        with pytest.raises(KilledError):
            experiment.run(cut, Console(quiet=True))
    experiment.run(cut, Console(quiet=True))
    assert result(cut) == result(whole)
    assert np.isfinite(result(whole)["train/loss/distill"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": 0.4}, "--labels None --noise 0"),
        ({"labels": 100}, "--labels None --noise 0"),
        ({"loss": "crd"}, "crd looks at the whole training set"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(change, message):
    whole = {"dataset": "stream:tiny_imagenet", "labels": None, "noise": 0}
    Config(**whole)
    with pytest.raises(ValueError, match=message):
        Config(**(whole | change))


@pytest.fixture
def digits(tmp_path):
    names = {"dataset": "digits", "labels": 50, "augment": "none", "runs": tmp_path}
    config = Config(name="digits", **(SMALL | names))
    config.claim_directory()
    return config


@pytest.fixture
def teacher(digits):
    from examples.distill.progress import progress_bars

    with progress_bars(Console(quiet=True)) as progress:
        return get_teacher(digits, load("digits"), progress)


def test_a_teacher_asked_once_says_what_it_says_every_time(digits, teacher):
    once = Students(digits, teacher)
    always = Students(dataclasses.replace(digits, cache_teacher=False), teacher)
    metrics = []
    for students in (once, always):
        job, plan = students.run("kd", 0), students.plan("kd")
        state = students.state(plan, 0)
        asked = job.remembered or students.problem.teacher
        indices = np.array([3, 4, 5, 0], np.int32)
        data = students.problem.layout.replicate(job.train)
        step = students.step(plan)
        after, seen = step(state, data, asked, indices, np.ones(4, np.float32))
        metrics.append((seen, after.params))
        assert (job.remembered is not None) == (students is once)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), *metrics)


def test_what_it_said_is_read_again(digits, teacher, monkeypatch):
    students = Students(digits, teacher)
    first = students.run("kd", 0).remembered.logits
    monkeypatch.setattr("examples.distill.remembered.whole", None)  # asks
    np.testing.assert_array_equal(students.run("kd", 0).remembered.logits, first)
    with pytest.raises(TypeError):
        students.run("kd", 1)  # other images


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"augment": "shift"}, False),
        ({"loss": "at"}, False),
        ({"loss": "ctkd"}, True),
        ({"cache_teacher": False}, False),
        ({"dataset": "stream:tiny_imagenet", "labels": None, "noise": 0}, False),
    ],
)
def test_when_it_is_valid(digits, change, valid):
    assert is_valid(dataclasses.replace(digits, **change)) is valid


@pytest.mark.parametrize("loss", [k for k, v in LOSSES.items() if v.on_logits])
def test_losses_on_logits_look_at_nothing_else_of_the_teacher(loss, digits, teacher):
    students = Students(dataclasses.replace(digits, loss=loss), teacher)
    job, plan = students.run("kd", 0), students.plan("kd")
    state = students.state(plan, 0)
    indices, weights = np.arange(4, dtype=np.int32), np.ones(4, np.float32)
    jax.eval_shape(
        students.step(plan), state, job.train, job.remembered, indices, weights
    )
