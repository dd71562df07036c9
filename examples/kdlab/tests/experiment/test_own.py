"""The user's own networks and data sets, as docs/own.md shows them."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import _archives
from kdlab.cli.main import main
from kdlab.data import load
from kdlab.experiment.make import make_config
from kdlab.models import Outputs, create
from kdlab.runs import files

pytestmark = pytest.mark.usefixtures("standard")

PAGE = Path(__file__).parents[4] / "docs" / "own.md"
QUICK = (
    *("--methods", "kd", "--seeds", "1", "--epochs", "1", "--teacher-epochs", "1"),
    *("--timing-rounds", "0", "--augment", "none", "--noise", "0"),
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Returns a folder with the modules of the page, none of them imported yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for program in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        (name,) = re.findall(r"# (\w+\.py)\n", program)
        (tmp_path / name).write_text(program)
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


def mine(folder, text):
    (folder / "mine.py").write_text(text)


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["kdlab", "distill", *arguments, *QUICK])
    code = main()
    return code, " ".join(capsys.readouterr().out.split())


def test_the_programs_of_the_page_are_short():
    programs = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(programs) == 2
    assert all(len(program.splitlines()) <= 20 for program in programs)


def test_own_network_and_own_data_train(folder, monkeypatch, capsys):
    options = ("--dataset", "stripes:open", "--teacher", "nets:make")
    options += ("--student", "nets:make", "--labels", "100", "--name", "stripes")
    code, shown = run(monkeypatch, capsys, *options)
    assert code == 0, shown
    result = files.read_result(files.seed_folder(Path("runs/stripes"), "kd", 0))
    assert 0 <= result["accuracy/last"] <= 1
    # A teacher is also cached by its code.
    assert len(list(Path("runs/teachers").glob("nets-make-*"))) == 1


def test_a_loss_on_features_asks_for_features(folder, monkeypatch, capsys):
    options = ("--dataset", "digits", "--teacher", "mlp", "--student", "nets:make")
    code, shown = run(monkeypatch, capsys, *options, "--loss", "rkd")
    assert code == 2
    assert "--loss rkd compares features, but nets:make returns only logits" in shown


def test_outputs_are_taken_as_they_are(folder):
    mine(
        folder,
        "from kdlab import models\n"
        "def make(*, rngs, **shapes):\n"
        "    return models.create('mlp', rngs=rngs, **shapes)\n",
    )
    made = create("mine:make", num_classes=3, image_shape=(8, 8, 1), rngs=nnx.Rngs(0))
    outputs = made(np.zeros((2, 8, 8, 1), np.float32))
    assert isinstance(outputs, Outputs) and outputs.logits.shape == (2, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            None,
            r"there is no module 'mine'; expected an installed package, or mine\.py",
        ),
        ("def makes(): pass", r"has no function 'make'; did you mean 'makes'\?"),
        ("make = lambda **_: 1", r"returned int, expected a flax\.nnx\.Module"),
        (
            "import nets\nmake = lambda num_classes, image_shape, rngs:"
            " nets.make(num_classes=7, image_shape=image_shape, rngs=rngs)",
            r"the shape \[2, 7\], expected \[2, 10\]: one score for each of the 10",
        ),
        (
            "from flax import nnx\nclass Net(nnx.Module):\n"
            "    def __call__(self, x): return x, x\n"
            "make = lambda **_: Net()",
            r"returned tuple, expected logits \[b, c\], or kdlab\.models\.Outputs",
        ),
    ],
)
def test_what_is_no_network_is_refused(text, message, folder):
    if text is not None:
        mine(folder, text)
    shapes = {"num_classes": 10, "image_shape": (8, 8, 1)}
    with pytest.raises(ValueError, match=message):
        create("mine:make", rngs=nnx.Rngs(0), **shapes)


def test_options_that_a_network_does_not_take_are_named():
    shapes = {"num_classes": 10, "image_shape": (8, 8, 1), "rngs": nnx.Rngs(0)}
    with pytest.raises(ValueError, match="'dtype': add it, or leave --dtype out"):
        create("nets:make", dtype="bfloat16", **shapes)


def test_names_are_checked_before_anything_is_read():
    with pytest.raises(ValueError, match="no module 'nowhere'"):
        make_config(student="nowhere:make")


def test_a_path_alone_is_a_data_set(folder):
    _archives.write_folders(folder / "photos")
    data = load("photos")
    assert data.num_classes == 2
    np.testing.assert_array_equal(
        data.train_images, load(f"folder:{folder / 'photos'}").train_images
    )
    arrays = {
        "train_images": data.train_images,
        "train_labels": data.train_labels,
        "test_images": data.test_images,
        "test_labels": data.test_labels,
    }
    np.savez(folder / "photos.npz", **arrays)
    same = load("photos.npz")
    np.testing.assert_array_equal(same.test_images, data.test_images)
    assert (same.num_classes, same.mean) == (2, data.mean)


ARRAYS = {
    "train_images": np.zeros((4, 8, 8), np.uint8),
    "train_labels": np.arange(4),
    "test_images": np.zeros((2, 8, 8), np.uint8),
    "test_labels": np.arange(2),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_labels": None}, "lacks test_labels: expected train_images and test_im"),
        (
            {"train_images": np.zeros((4, 8, 8), np.float32)},
            r"train_images are float32\[4, 8, 8\], expected uint8 .*\(255 \* images\)",
        ),
        (
            {"train_labels": np.zeros((4, 2), int)},
            r"train_labels are int64\[4, 2\], ex",
        ),
        ({"train_labels": np.zeros(4)}, r"train_labels are float64\[4\], expected int"),
        ({"train_labels": np.arange(3)}, r"labels are int32\[3\], expected int32\[4\]"),
        ({"test_labels": np.array([0, 9])}, "run from 0 to 9, expected 0 to 3"),
        ({"train_labels": np.arange(4) - 1}, "run from -1 to 2, expected 0 to 2"),
        ({"test_images": np.zeros((2, 9, 8), np.uint8)}, "expected one shape"),
        ({"test_images": np.zeros((0, 8, 8), np.uint8)}, "no test_images"),
    ],
)
def test_arrays_that_are_no_data_set_are_refused(change, message, folder):
    arrays = {k: v for k, v in (ARRAYS | change).items() if v is not None}
    np.savez(folder / "mine.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load("mine.npz")


def test_files_and_functions_that_are_not_there_are_named(folder):
    with pytest.raises(FileNotFoundError, match=r"no file no\.npz; expected train_im"):
        load("no.npz")
    (folder / "mine.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"mine\.npz cannot be read"):
        load("mine.npz")
    mine(folder, "def open(): return 3")
    with pytest.raises(ValueError, match=r"mine:open returned int, expected a kdlab"):
        load("mine:open")
    assert load("stripes:open", image_size=5).image_shape == (5, 5, 1)
