"""Teachers that were trained separately, or published."""

import json

import jax
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from kdlab.data import load
from kdlab.experiment.make import make_config
from kdlab.experiment.networks import make_model
from kdlab.experiment.run import run
from kdlab.experiment.teachers import load_teacher
from kdlab.models import weights
from kdlab.runs.claim import claim

pytestmark = pytest.mark.usefixtures("standard")

SETTINGS = {
    "dataset": "digits",
    "augment": "none",
    "student": "mlp",
    "seeds": 1,
    "epochs": 2,
    "timing_rounds": 0,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that learned from the labels alone."""
    runs = tmp_path_factory.mktemp("runs")
    alone = {"name": "alone", "teacher": None, "methods": ("labels_only",)}
    config = make_config(runs=runs, labels=None, noise=0.0, **(SETTINGS | alone))
    console = Console(record=True, width=160)
    run(config, console)
    assert f"Weights: {config.directory / 'weights'}" in console.export_text()
    return config


def test_student_of_the_labels_alone_teaches_others(trained):
    config = make_config(
        runs=trained.execution.runs,
        name="taught",
        teacher="mlp",
        teacher_weights=trained.directory / "weights",
        methods=("kd",),
        **SETTINGS,
    )
    run(config, Console(quiet=True))
    files = config.directory / "teacher.json", trained.directory / "labels_only/seed0"
    teacher = json.loads(files[0].read_text())
    result = json.loads((files[1] / "result.json").read_text())
    assert teacher["accuracy/last"] == pytest.approx(result["accuracy/last"])
    assert not list(
        (trained.execution.runs / "teachers").glob("mlp-*")
    )  # none was trained


def test_weights_of_another_network_are_refused(trained):
    config = make_config(
        runs=trained.execution.runs,
        teacher="cnn_student",
        teacher_weights=trained.directory / "weights",
        **SETTINGS,
    )
    with pytest.raises(ValueError, match=r"not hold the weights of cnn_student.*10 cl"):
        load_teacher(config, load("digits"))


def test_weights_that_are_not_there_are_named(tmp_path):
    config = make_config(teacher_weights=tmp_path / "no.pth", **SETTINGS)
    with pytest.raises(FileNotFoundError, match=r"no\.pth does not exist; expected"):
        load_teacher(config, load("digits"))


def test_published_file_is_loaded(tmp_path):
    dataset = load("synthetic-tiny")
    model = make_model("resnet8", dataset, nnx.Rngs(3))
    file = tmp_path / "published.safetensors"
    weights.write_safetensors(file, "resnet8", model)
    config = make_config(
        runs=tmp_path,
        dataset="synthetic-tiny",
        teacher="resnet8",
        teacher_weights=file,
    )
    claim(config)
    teacher = load_teacher(config, dataset)
    ours = jax.tree.leaves(nnx.state(model, nnx.Param))
    theirs = jax.tree.leaves(teacher.network.params)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_only_labels_need_no_teacher():
    with pytest.raises(ValueError, match="needs --methods labels_only"):
        make_config(teacher=None, methods=("kd",))
