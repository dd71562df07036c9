"""Class folders: what is left out, and the messages for other layouts."""

import sys

import numpy as np
import pytest

import _archives
from kdlab.cli.main import main
from kdlab.data import load, open_streamed
from kdlab.data.fingerprint import hash_files

IMAGE = _archives.encode(np.full((8, 8, 3), 7, np.uint8))


def put(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(IMAGE)


def classes(root, *splits):
    put(root, *(f"{x}/{name}/0.png" for x in splits for name in ("cat", "dog")))


HIDDEN = (
    ".ipynb_checkpoints/0.png",
    "cat/.ipynb_checkpoints/0-checkpoint.png",
    "cat/._0.png",
    "cat/.DS_Store",
    "dog/Thumbs.db",
    "dog/@eaDir/0.png/SYNOPHOTO_THUMB.png",
    "__MACOSX/cat/._0.png",
    ".git/cat.png",
    "cat/notes.txt",
    "cat/labels.csv",
    "dog/README",
    "README.md",
)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_hidden_and_other_files_are_left_out(hidden, tmp_path):
    classes(tmp_path, "train", "val")
    put(tmp_path, f"train/{hidden}", f"val/{hidden}", hidden)
    data = load(f"folder:{tmp_path}")
    assert (data.num_classes, data.train_labels.tolist()) == (2, [0, 1])
    assert data.test_labels.tolist() == [0, 1]
    assert open_streamed(f"stream:folder:{tmp_path}").num_train == 2


def test_prepared_sets_beside_hidden_and_unfinished_folders_are_found(tmp_path):
    place = _archives.write_tfds(tmp_path, "colour")
    for name in (".1.2.0", "incomplete.ABC_9.9.9", "9.9.9.incomplete"):
        (place.parent / name).mkdir()
        (place.parent / name / "dataset_info.json").write_text("")
    assert len(load("tiny_digits", data_dir=tmp_path).train_images) == 9


def nothing(root):
    pass


def absent(root):
    root.rmdir()


def archive(root):
    root.rmdir()
    root.write_bytes(b"PK")


def no_test_split(root):
    classes(root, "train")


def no_training_split(root):
    classes(root, "val")


def classes_in_the_root(root):
    put(root, "cat/0.png", "dog/0.png")


def images_in_the_root(root):
    put(root, "0.png", "1.png")


def a_folder_around_it(root):
    classes(root / "pets", "train", "val")


def images_in_the_split(root):
    put(root, "train/0.png", "train/1.png", "val/0.png")


def a_folder_around_the_classes(root):
    classes(root, "train/images", "val/images")


def one_class(root):
    put(root, "train/cat/0.png", "val/cat/0.png")


def an_empty_class(root):
    classes(root, "train", "val")
    (root / "train" / "bird").mkdir()


def no_image_at_all(root):
    put(root, "train/cat/notes.txt", "train/dog/a.npy", "val/cat/notes.txt")


def a_class_without_images_of_a_known_kind(root):
    classes(root, "train", "val")
    put(root, "train/bird/0.heic")


def another_class_to_test(root):
    classes(root, "train", "val")
    put(root, "val/Cat/0.png")


def an_empty_test_split(root):
    classes(root, "train")
    (root / "val").mkdir()


LAYOUTS = [
    (nothing, ["expected {root}/train and one of", "found nothing"]),
    (absent, ["there is no such folder"]),
    (archive, ["it is a file: unpack it"]),
    (no_test_split, ["found 1 folder (train)", "to {root}/val"]),
    (no_training_split, ["found 1 folder (val)", "expected {root}/train"]),
    (classes_in_the_root, ["found 2 folders (cat, dog)", "divide their images"]),
    (images_in_the_root, ["found 2 images (0.png, 1.png)"]),
    (a_folder_around_it, ["found 1 folder (pets)", "Did you mean folder:{root}/pets?"]),
    (images_in_the_split, ["no image in {root}/train", "holds 2 images (0.png, 1.png"]),
    (
        a_folder_around_the_classes,
        ["{root}/train has only one class, 'images'", "2 folders (cat, dog)", "move"],
    ),
    (one_class, ["only one class, 'cat'", "two or more class folders"]),
    (an_empty_class, ["{root}/train has no image of bird", "remove this folder"]),
    (no_image_at_all, ["no image in {root}/train", ".png", "2 folders (cat, dog)"]),
    (a_class_without_images_of_a_known_kind, ["has no image of bird"]),
    (another_class_to_test, ["{root}/val has the class folder 'Cat'", "cat, dog"]),
    (an_empty_test_split, ["no image in {root}/val", "It holds nothing"]),
]


@pytest.mark.parametrize(
    ("layout", "words"), LAYOUTS, ids=[layout.__name__ for layout, _ in LAYOUTS]
)
@pytest.mark.parametrize("prefix", ["", "stream:"])
def test_another_layout_is_explained(layout, words, prefix, tmp_path):
    root = tmp_path / "a folder, named ä[b]"
    root.mkdir()
    layout(root)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        (open_streamed if prefix else load)(f"{prefix}folder:{root}")
    for word in words:
        assert word.format(root=root) in str(error.value)


def test_a_test_split_without_labels_is_passed_over(tmp_path):
    classes(tmp_path, "train", "validation")
    put(tmp_path, "test/0.png", "test/1.png", "val/.ipynb_checkpoints/cat/0.png")
    assert load(f"folder:{tmp_path}").test_labels.tolist() == [0, 1]
    classes(tmp_path, "test")
    put(tmp_path, "test/dog/1.png")
    assert load(f"folder:{tmp_path}").test_labels.tolist() == [0, 1, 1]


def test_a_split_instead_of_the_root_is_noticed(tmp_path):
    classes(tmp_path, "train", "val")
    with pytest.raises(FileNotFoundError, match=rf"Did you mean folder:{tmp_path}\?"):
        load(f"folder:{tmp_path / 'train'}")


def test_sizes_that_differ_are_named_with_their_images(tmp_path, monkeypatch, capsys):
    _archives.write_folders(tmp_path, sizes=(8, 10))
    arguments = ["--dataset", f"folder:{tmp_path}", "--runs", f"{tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["kdlab", "distill", *arguments])
    assert main() == 2
    shown = capsys.readouterr().out
    images = tmp_path / "train" / "cat" / "images"
    assert f"{images / '1.png'} is (10, 10, 3), {images / '0.png'} is" in shown
    assert "pass --image-size to" in shown


def test_links_are_followed_and_circles_are_not(tmp_path):
    classes(tmp_path, "train", "val")
    elsewhere = tmp_path / "elsewhere"
    put(elsewhere, "more/1.png", "2.png")
    (tmp_path / "train" / "cat" / "more").symlink_to(elsewhere / "more")
    (tmp_path / "train" / "cat" / "2.png").symlink_to(elsewhere / "2.png")
    (tmp_path / "train" / "cat" / "circle").symlink_to(tmp_path / "train" / "cat")
    (tmp_path / "train" / "fish").symlink_to(elsewhere)
    data = load(f"folder:{tmp_path}")
    assert data.train_labels.tolist() == [0, 0, 0, 1, 2, 2]
    (elsewhere / "2.png").unlink()
    with pytest.raises(ValueError, match=r"2\.png cannot be read: it is a link to"):
        load(f"folder:{tmp_path}")


@pytest.mark.parametrize("limit", [None, 0])
def test_any_change_of_the_files_changes_their_hash(limit, tmp_path, monkeypatch):
    """It hashes the contents; of large folders names, sizes and times."""
    if limit is not None:
        monkeypatch.setattr("kdlab.data.fingerprint.CONTENTS", limit)
    one, two = tmp_path / "cat.png", tmp_path / "dog.png"
    one.write_bytes(b"cat"), two.write_bytes(b"dogs")

    def found(*paths, root=tmp_path):
        return hash_files(paths, root=root)

    before = found(one, two)
    assert found(one, two) == before
    assert found(two, one) != before != found(one)
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (one, two):
        path.rename(moved / path.name)
    assert found(moved / one.name, moved / two.name, root=moved) == before
    (moved / one.name).write_bytes(b"cot")
    assert found(moved / one.name, moved / two.name, root=moved) != before
