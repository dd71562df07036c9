"""A user's mistake gives one paragraph with a remedy, and loses nothing."""

import errno
import json
import os
import sys

import numpy as np
import pytest
from flax import nnx

import _archives
from _models import filled
from kdlab.cli.main import main
from kdlab.data import load
from kdlab.devices.checkpoint import Position, Saver
from kdlab.experiment.make import make_config
from kdlab.experiment.networks import make_model
from kdlab.models import weights
from kdlab.papers.recipes import smoke
from kdlab.runs.record import record_start

pytestmark = pytest.mark.usefixtures("standard")

SMALL = (
    *("--teacher", "mlp", "--student", "mlp", "--methods", "kd", "--seeds", "1"),
    *("--epochs", "1", "--teacher-epochs", "1", "--timing-rounds", "0"),
    *("--labels", "None", "--noise", "0", "--augment", "none"),
)
LFS = b"version https://git-lfs.github.com/spec/v1\n"


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Runs the command line in its own folder; returns its exit code and output."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, name="distill"):
        monkeypatch.setattr(sys, "argv", ["kdlab", name, *map(str, arguments)])
        capsys.readouterr()  # drop the output of making the data
        try:
            code = main()
        except SystemExit as error:  # from the parser
            code = error.code
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    return run


def assert_one_paragraph(code, shown, *words):
    assert code == 2
    assert shown.count("error:") == 1
    paragraph = shown[shown.index("error:") :].strip()
    assert "\n" not in paragraph
    for word in words:
        assert str(word) in paragraph, (word, paragraph)


def image(root):
    _archives.write_folders(root)
    path = root / "train" / "dog" / "images" / "2.png"
    return path, ["--dataset", f"folder:{root}"]


def idx(root):
    _archives.write_idx(root)
    path = root / "t10k-images-idx3-ubyte.gz"
    return path, ["--dataset", "mnist", "--data-dir", root]


def archive(root):
    _archives.write_cifar(root, "cifar10", "python")
    path = root / "cifar-10-python.tar.gz"
    return path, ["--dataset", "cifar10", "--data-dir", root]


def records(root):
    place = _archives.write_tfds(root, "colour")
    (path,) = place.glob("*train.array_record*")
    return path, ["--dataset", "tiny_digits", "--data-dir", root]


def published(root):
    model = filled("resnet8", num_classes=4, image_shape=(24, 24, 3))
    path = root / "teacher.safetensors"
    weights.write_safetensors(path, "resnet8", model)
    options = ["--dataset", "synthetic-smoke", "--teacher", "resnet8"]
    return path, [*options, "--teacher-weights", path]


def checkpoint(root):
    path = root / "weights"
    data = load("synthetic-smoke")
    weights.save_orbax(path, make_model("mlp", data, nnx.Rngs(0)))
    options = ["--dataset", "synthetic-smoke", "--teacher-weights", path]
    return path / "_METADATA", options


def recipe(root):
    path = root / "recipe.json"
    path.write_text("{}")
    return path, ["--recipe", path]


@pytest.mark.parametrize(
    "make", [image, idx, archive, records, published, checkpoint, recipe]
)
@pytest.mark.parametrize("content", [b"", b"damaged", LFS, b"<html>403</html>"])
def test_damaged_inputs_are_named(make, content, command, tmp_path):
    root = tmp_path / "a folder [1], named ä"
    root.mkdir()
    path, options = make(root)
    path.write_bytes(content)
    name = path.parent if path.name == "_METADATA" else path
    words = [name, *["git lfs pull"] * (content == LFS)]
    code, shown = command(*SMALL, *options, "--runs", tmp_path / "runs")
    assert_one_paragraph(code, shown, *words)
    assert not list((tmp_path / "runs").rglob("metrics.jsonl"))
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EACCES, "permissions"),
        (errno.EROFS, "--runs"),
        (errno.EIO, "input/output error"),
    ],
)
def test_errors_of_the_system_are_told(number, words, command, monkeypatch):
    def fail(*_):
        raise OSError(number, os.strerror(number), "runs/digits/[config].json")

    monkeypatch.setattr("kdlab.experiment.run.run", fail)
    code, shown = command(*SMALL, "--dataset", "digits")
    assert_one_paragraph(code, shown, words, "runs/digits/[config].json: ")


def test_options_are_named_and_not_the_arguments_of_functions(command):
    for options, words in (
        (["cifar10"], "into a folder and give it as --data-dir. To"),
        (["eurosat"], "no --data-dir is given"),
    ):
        code, shown = command(*SMALL, "--dataset", *options)
        assert_one_paragraph(code, shown, words)
        assert "data_dir" not in shown


def test_a_file_in_place_of_the_folder_of_runs(command, tmp_path):
    (tmp_path / "runs").write_text("precious")
    code, shown = command(*SMALL, "--dataset", "digits")
    assert_one_paragraph(code, shown, "runs/digits", "choose another --runs")
    assert (tmp_path / "runs").read_text() == "precious"


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "/tmp/x"])
def test_names_that_lead_out_of_the_runs_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"--name .* is not a folder below --runs"):
        make_config(name=name, runs=tmp_path / "runs")


def test_a_smoke_run_removes_nothing_else(tmp_path):
    """Whatever name it is given."""
    precious = tmp_path / "precious"
    precious.mkdir()
    for name in ("smoke/../precious", "smoke/../../precious", "../precious"):
        with pytest.raises(ValueError):
            smoke.remove_earlier(make_config(name=name, runs=tmp_path / "runs"))
    smoke.remove_earlier(make_config(name="precious", runs=tmp_path))
    assert precious.is_dir()


def test_a_first_start_that_fails_gives_the_name_up(command, tmp_path, monkeypatch):
    """Otherwise a corrected path would need another name."""
    monkeypatch.setattr("kdlab.runs.plot.draw_figures", lambda _: [])  # they are slow
    options = (*SMALL, "--dataset", "digits", "--labels", "40")
    code, shown = command(*options, "--teacher-weights", "nowhere.pth")
    assert_one_paragraph(code, shown, "--teacher-weights nowhere.pth does not exist")
    assert command(*options)[0] == 0
    # Now there are runs: other settings need another name.
    code, shown = command(*options, "--teacher-weights", "nowhere.pth")
    assert_one_paragraph(code, shown, "--teacher-weights was None", "another --name")
    assert "config.json" in os.listdir(tmp_path / "runs" / "digits")


def test_paths_of_any_kind_work(command, tmp_path):
    root = tmp_path / "größere Bilder [1]"
    _archives.write_folders(root)
    link = tmp_path / "link"
    link.symlink_to(root)
    name, batch = (
        "ein Versuch/mit ümlaut",
        ["--batch-size", 500],
    )  # more than there are images
    options = ["--dataset", "folder:link", *batch]
    code, shown = command(*SMALL, *options, "--runs", "meine Läufe", "--name", name)
    assert code == 0
    assert f"Figure: meine Läufe/{name}/figures/accuracy.png\n" in shown
    assert command("meine Läufe", name="compare")[0] == 0


def test_a_full_disk_is_named_by_the_folder(tmp_path, monkeypatch):
    text = "RESOURCE_EXHAUSTED: Error writing x: No space left on device [code=28]"
    with Saver(tmp_path / "checkpoints") as saver:

        def fail(*_, **__):
            raise ValueError(text)

        monkeypatch.setattr(saver._manager, "save", fail)
        with pytest.raises(OSError, match="No space left") as error:
            saver.save(1, {"x": np.ones(2)}, Position())
        assert (error.value.errno, error.value.filename) == (
            errno.ENOSPC,
            str(tmp_path / "checkpoints"),
        )


def test_a_full_disk_does_not_hide_where_it_is(tmp_path, monkeypatch):
    """Writing to a file that is open fails without its name; the record fails too."""
    with (
        pytest.raises(OSError) as error,
        record_start(tmp_path, []),
    ):
        (
            tmp_path / f"record.json.{os.getpid()}.part"
        ).mkdir()  # so that the end cannot be written
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(tmp_path)
    assert json.loads((tmp_path / "record.json").read_text())[0]["ended"] is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "put tiny-imagenet-200.zip into"),
        (b"", "tiny-imagenet-200.zip cannot be read: it is empty"),
        (b"<html>", "tiny-imagenet-200.zip cannot be read: it is a web page"),
        (LFS, "git lfs pull"),
        (b"PK" + bytes(1000), "tiny-imagenet-200.zip cannot be read"),
    ],
)
def test_preparing_a_data_set_ends_the_same_way(
    content, words, tmp_path, monkeypatch, capsys
):
    if content is not None:
        (tmp_path / "tiny-imagenet-200.zip").write_bytes(content)
    arguments = ["kdlab", "prepare", "tiny_imagenet", "--data-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert main() == 2
    shown = capsys.readouterr().out
    assert words in shown.splitlines()[-1]
    assert shown.splitlines()[-1].startswith("error: ")
