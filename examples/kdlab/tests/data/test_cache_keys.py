"""A cached teacher or data set is never mistaken for another."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from rich.console import Console
from rich.progress import Progress

import _archives
from kdlab.data import open_dataset
from kdlab.data.array_cache import load_or_compute
from kdlab.devices.mesh import make_layout
from kdlab.experiment import run as experiment
from kdlab.experiment import splits, teachers
from kdlab.experiment.cached_logits import cache_logits
from kdlab.experiment.make import make_config
from kdlab.experiment.networks import make_model
from kdlab.minima.restore import reopen
from kdlab.models import weights
from kdlab.models.network import Network
from kdlab.runs.claim import claim
from kdlab.settings.config import NAMES

pytestmark = pytest.mark.usefixtures("standard")

# Every setting with another value. A new setting must be added here, and declared below
# if it changes what a teacher is or sees.
OTHERS = {
    "name": "other",
    "dataset": "synthetic-smoke",
    "image_size": 6,
    "labels": 3,
    "noise": 0.2,
    "augment": "shift",
    "teacher": "cnn_student",
    "teacher_epochs": 2,
    "teacher_weights": Path("weights.safetensors"),
    "student": "cnn_student",
    "methods": ("dto_kd",),
    "seeds": 1,
    "loss": "soft_kl",
    "alpha": 0.5,
    "loss_weights": (1.0, 2.0),
    "loss_beta": 2.0,
    "loss_warmup": 1.0,
    "temperature": 2.0,
    "student_temperature": 2.0,
    "epochs": 3,
    "batch_size": 4,
    "accumulate": 2,
    "optimizer": "adamw",
    "learning_rate": 0.5,
    "schedule": "steps",
    "decay_epochs": (2,),
    "decay_rate": 0.5,
    "warmup_epochs": 1.0,
    "momentum": 0.8,
    "nesterov": True,
    "delta": 0.05,
    "weight_decay": 0.1,
    "clip": 1.0,
    "dtype": "bfloat16",
    "ema": 0.9,
    "batch_norm_group": 8,
    "max_blocks": 1,
    "devices": 1,
    "shard_params": True,
    "on_nonfinite": "skip",
    "checkpoint_seconds": 1.0,
    "coordinator": "host:1",
    "num_processes": 1,
    "process_id": 0,
    "tensorboard": True,
    "wandb": True,
    "timing_rounds": 1,
    "runs": Path("elsewhere"),
    "workers": 1,
    "cache_teacher": False,
    "data_dir": None,  # the folder of another set of the same name
    "interpolation": "bicubic",
    "mixup": 0.8,
    "cutmix": 1.0,
    "mix_switch": 0.3,
    "mix_probability": 0.5,
    "smoothing": 0.1,
    "erasing": 0.25,
    "repeats": 3,
    "drop_path": 0.1,
    "remat": True,
    "scan": True,
    "last_rate": 1e-5,
    "warmup_rate": 1e-6,
    "decayed": "deit",
}
# Some settings are rejected without another.
WITH = {
    "loss_beta": {"loss": "dkd"},
    "loss_warmup": {"loss": "dkd"},
    "student_temperature": {"loss": "soft_kl"},
    "schedule": {"decay_epochs": (2,)},
    "decay_epochs": {"schedule": "steps"},
    "decayed": {"optimizer": "adamw"},
}
DATA = {"dataset", "image_size", "data_dir"}
TRAINING = {"augment", "teacher", "teacher_epochs", "momentum", "weight_decay"}
TRAINING |= {"interpolation"}  # of streamed images
TRAINED = DATA | TRAINING | {"max_blocks"}
SAID = DATA | {"labels", "teacher", "max_blocks", "dtype"}


def fields():
    return set(NAMES)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Makes settings on nine images, and a place for others of that name."""
    root, other = (tmp_path_factory.mktemp(name) for name in ("data", "other"))
    _archives.write_tfds(root, "colour")
    _archives.write_tfds(other, "grey")
    config = make_config(
        dataset="tiny_digits",
        data_dir=root,
        labels=6,
        noise=0.0,
        augment="none",
        teacher="mlp",
        student="mlp",
        methods=("kd",),
        epochs=4,
        teacher_epochs=1,
        timing_rounds=0,
    )
    return config, other


def changed(base, field):
    config, other = base
    value = other if field == "data_dir" else OTHERS[field]
    return make_config(config, **{field: value} | WITH.get(field, {}))


def dataset_of(config):
    return open_dataset(
        config.data.dataset,
        data_dir=config.data.data_dir,
        image_size=config.data.image_size,
    )


def test_every_setting_is_declared():
    assert set(OTHERS) == fields()
    assert fields() >= TRAINED | SAID


@pytest.mark.parametrize("field", OTHERS)
def test_a_teacher_is_kept_by_all_that_decides_its_training(base, field):
    names = [
        teachers.cache_folder(config, dataset_of(config)).name
        for config in (base[0], changed(base, field))
    ]
    assert (names[0] != names[1]) == (field in TRAINED), field


@pytest.mark.parametrize("field", sorted(fields() - TRAINED))
def test_other_settings_do_not_reach_the_training_of_a_teacher(base, field):
    """Not only the key is the same, but also what is trained."""
    alike = [
        teachers.teacher_config(x).settings() for x in (base[0], changed(base, field))
    ]
    for settings in alike:
        del settings["name"]
    assert alike[0] == alike[1]


@pytest.mark.parametrize("field", sorted(fields() - {"cache_teacher"}))
def test_what_a_teacher_said_is_kept_by_all_that_decides_it(base, field, monkeypatch):
    names = []

    def spy(path, compute):
        names.append(path.name)
        return {"logits": np.zeros((1, 1))}

    monkeypatch.setattr("kdlab.data.teacher_cache.load_or_compute", spy)
    for config in (base[0], changed(base, field)):
        dataset = dataset_of(config)
        arrays = {"params": {"w": np.ones(2)}, "rest": {}}
        part = splits.select_images(config.data, dataset, 0)
        cache_logits(Network(None, **arrays), part, make_layout(), config)
    assert (names[0] != names[1]) == (field in SAID), field


def test_the_same_data_elsewhere_are_the_same(base, tmp_path):
    config = base[0]
    shutil.copytree(config.data.data_dir, tmp_path / "copy")
    moved = make_config(config, data_dir=tmp_path / "copy")
    ours, theirs = dataset_of(config), dataset_of(moved)
    assert ours.fingerprint == theirs.fingerprint


@pytest.mark.parametrize(
    "array", ["train_images", "train_labels", "test_images", "test_labels"]
)
def test_every_element_is_part_of_the_fingerprint(base, array):
    data = dataset_of(base[0])
    values = getattr(data, array).copy()
    values.flat[-1] = (values.flat[-1] + 1) % 3
    assert dataclasses.replace(data, **{array: values}).fingerprint != data.fingerprint


def test_how_images_are_normalised_is_part_of_the_fingerprint(base):
    data = dataset_of(base[0])
    for change in ({"mean": (0.1,) * 3}, {"std": (0.1,) * 3}, {"num_classes": 4}):
        assert dataclasses.replace(data, **change).fingerprint != data.fingerprint


def test_streams_are_known_by_their_files_and_what_is_done_to_them(tmp_path):
    _archives.write_folders(tmp_path)
    name = f"stream:folder:{tmp_path}"

    def found(**options):
        return open_dataset(name, **options).fingerprint

    before = found()
    assert found() == before != found(image_size=7)
    (tmp_path / "val" / "cat" / "images" / "0.png").rename(
        tmp_path / "val" / "dog" / "images" / "9.png"
    )
    assert found() != before


def test_labels_of_a_stream_are_read_again_after_a_change(tmp_path):
    _archives.write_folders(tmp_path / "data")
    config = make_config(
        dataset=f"stream:folder:{tmp_path / 'data'}",
        runs=tmp_path / "runs",
        labels=None,
        noise=0.0,
    )

    def labels():
        data = dataset_of(config)
        images = splits.training_split(config.data, data, 0)
        runs = config.execution.runs
        return splits.read_all_labels(images, config.data, runs).tolist()

    assert labels() == [0] * 4 + [1] * 4
    images = tmp_path / "data" / "train"
    (images / "cat/images/3.png").rename(images / "dog/images/9.png")
    assert labels() == [0] * 3 + [1] * 5


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "one bit": lambda content: content[:200] + b"\xff" + content[201:],
    "a page": lambda content: b"<html>",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_made_again_with_a_line(kind, tmp_path, caplog):
    path = tmp_path / "logits-0.npz"
    load_or_compute(path, lambda: {"logits": np.arange(100.0)})
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    again = load_or_compute(path, lambda: {"logits": np.ones(2)})
    assert again["logits"].tolist() == [1, 1]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{path} cannot be read" in record.getMessage()
    caplog.clear()
    assert load_or_compute(path, dict)["logits"].tolist() == [1, 1]
    assert not caplog.records


@pytest.mark.parametrize("kind", ["of another name", "of an older version", "an array"])
def test_a_file_of_something_else_is_not_taken(kind, tmp_path, caplog):
    path = tmp_path / "logits-0.npz"
    if kind == "of another name":
        load_or_compute(tmp_path / "logits-1.npz", lambda: {"logits": np.zeros(2)})
        (tmp_path / "logits-1.npz").rename(path)
    elif kind == "of an older version":
        np.savez(path, logits=np.zeros(2))
    else:
        with path.open("wb") as file:
            np.save(file, np.zeros(2))
    assert load_or_compute(path, lambda: {"logits": np.ones(2)})["logits"].tolist() == [
        1,
        1,
    ]
    assert str(path) in caplog.text


@pytest.fixture
def small(tmp_path):
    """Writes two classes that a teacher tells apart, in folders."""
    root = tmp_path / "data"
    _archives.write_folders(root)
    return make_config(
        dataset=f"folder:{root}",
        runs=tmp_path / "runs",
        labels=None,
        noise=0.0,
        augment="none",
        teacher="mlp",
        student="mlp",
        methods=("kd",),
        seeds=1,
        epochs=1,
        teacher_epochs=1,
        batch_size=4,
        timing_rounds=0,
    )


@pytest.fixture
def trained(monkeypatch):
    """Returns the titles of the teachers that were trained."""
    shown, show = [], teachers.show_run

    def spy(start, job, title, progress):
        shown.append(title)
        show(start, job, title, progress)

    monkeypatch.setattr(teachers, "show_run", spy)
    return shown


def train(config):
    config.directory.mkdir(parents=True, exist_ok=True)
    return teachers.train_teacher(config, dataset_of(config), Progress(disable=True))


def test_a_teacher_is_trained_once_and_again_where_it_must(small, trained, caplog):
    train(small)
    train(make_config(small, temperature=2.0, learning_rate=0.5))
    assert len(trained) == 1
    images = Path(small.data.dataset.removeprefix("folder:")) / "train"
    (images / "cat/images/3.png").rename(images / "dog/images/9.png")
    train(small)
    assert len(trained) == 2
    # A cache that cannot be read is moved aside and rebuilt.
    folder = teachers.cache_folder(small, dataset_of(small))
    for damage in (
        lambda: (folder / "result.json").write_text("{"),
        lambda: shutil.rmtree(folder / "checkpoints"),
        lambda: [x.write_bytes(b"") for x in folder.glob("checkpoints/*/*/_METADATA")],
    ):
        damage()
        count = len(trained)
        train(small)
        assert len(trained) == count + 1
        assert f"Moved to {folder}-unreadable" in caplog.text
        caplog.clear()
    assert len(list(folder.parent.glob("*-unreadable*"))) == 3
    # A teacher that diverged is not trained again each time.
    shutil.rmtree(folder / "checkpoints")
    (folder / "result.json").write_text('{"diverged": 1, "step": 2}')
    with pytest.raises(FloatingPointError, match="choose another --teacher"):
        train(small)
    assert len(trained) == count + 1


def test_a_run_does_not_go_on_with_other_data(small, monkeypatch):
    """Nor is it evaluated on others; images of several sizes are resized to one."""
    monkeypatch.setattr("kdlab.runs.plot.draw_figures", lambda _: [])  # they are slow
    root = Path(small.data.dataset.removeprefix("folder:"))
    shutil.rmtree(root)
    _archives.write_folders(root, sizes=(8, 10))
    small = make_config(small, image_size=6)
    experiment.run(small, Console(quiet=True))
    inputs = json.loads((small.directory / "inputs.json").read_text())
    assert inputs == {"data": dataset_of(small).fingerprint}
    experiment.run(small, Console(quiet=True))  # nothing has changed
    progress = Progress(disable=True)
    assert reopen(small.directory, progress).dataset.image_shape == (6, 6, 3)
    (root / "train/cat/images/3.png").rename(root / "train/dog/images/9.png")
    with pytest.raises(ValueError, match="with other contents of --dataset"):
        experiment.run(small, Console(quiet=True))
    with pytest.raises(ValueError, match="with other contents of --dataset"):
        reopen(small.directory, progress)


def test_a_run_does_not_go_on_with_other_weights_of_its_teacher(small):
    def save(seed):
        path = small.execution.runs / f"weights{seed}"
        model = make_model("mlp", dataset_of(small), nnx.Rngs(seed))
        weights.save_orbax(path, model)
        return path

    path = save(0)
    config = make_config(small, teacher_weights=path)
    claim(config)
    teachers.load_teacher(config, dataset_of(config))
    teachers.load_teacher(config, dataset_of(config))
    shutil.rmtree(path)
    save(1).rename(path)
    with pytest.raises(ValueError, match="other contents of --teacher-weights"):
        teachers.load_teacher(config, dataset_of(config))
