"""The short programs run from end to end, and say what is missing."""

import io
import math
import tarfile

import jax
import numpy as np
import pytest
from PIL import Image

from examples import cifar, imagenet, two_losses

pytestmark = pytest.mark.usefixtures("standard")


def test_balancing_serves_both_losses_where_a_sum_does_not():
    steps = ["--steps", "600"]
    balanced, summed = (
        two_losses.main(steps),
        two_losses.main(["--method", "sum", *steps]),
    )
    assert np.all(np.asarray(balanced) < np.asarray(summed) / 2)


@pytest.mark.parametrize(
    "methods",
    [
        ("dot", "dto_kd"),
        pytest.param(cifar.METHODS[1:], marks=pytest.mark.slow, id="all"),
    ],
)
def test_cifar_runs(methods, capsys):
    small = ["--epochs", "2", "--widths", "8", "4"]
    accuracies = cifar.main([*small, "--method", *methods])
    assert list(accuracies) == ["teacher", *methods]
    assert accuracies["teacher"] > 40 and min(accuracies.values()) > 10
    assert "dot               epoch   2  losses" in capsys.readouterr().out


def test_cifar_reads_the_published_archive(tmp_path):
    rows = np.random.default_rng(0).integers(0, 10, (6, 2, 3073), np.uint8)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name, part in zip(names, rows, strict=True):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = part.size
            archive.addfile(info, io.BytesIO(part.tobytes()))
    (images, labels), (test_images, test_labels) = cifar.load(tmp_path)
    assert images.shape == (10, 32, 32, 3) and test_images.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(labels, rows[:5, :, 0].ravel())
    np.testing.assert_array_equal(test_labels, rows[5, :, 0])
    # The first byte of the green plane is the green of the first pixel.
    assert images[3, 0, 0, 1] == rows[1, 1, 1 + 1024]
    assert images[3, 0, 1, 0] == rows[1, 1, 2]


def test_cifar_draws_ten_classes_that_differ():
    (images, labels), _ = cifar.load("synthetic")
    assert images.shape == (4000, 16, 16, 3) and images.dtype == np.uint8
    assert np.all(np.bincount(labels, minlength=10) > 300)


def test_cifar_crops_inside_the_padded_image():
    images = np.full((64, 8, 8, 3), 7, np.uint8)
    cropped = np.asarray(jax.jit(cifar.augment)(images, jax.random.key(0)))
    assert cropped.shape == images.shape and set(np.unique(cropped)) == {0, 7}
    assert 49 <= np.sum(cropped[0, :, :, 0] == 7) <= 64  # a border of one pixel at most


def test_missing_data_is_one_clear_error(tmp_path):
    with pytest.raises(
        SystemExit, match=r"no .*cifar-10-binary.*Download it from https"
    ):
        cifar.main(["--data", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"no folder .*train.* or synthetic"):
        imagenet.main(["--data", "imagenet2012"])
    with pytest.raises(SystemExit, match="multiple of the 8 devices"):
        imagenet.main(["--batch-size", "12"])


@pytest.mark.slow
def test_imagenet_goes_on_where_it_was_killed(tmp_path, monkeypatch, capsys):
    """In the student's second epoch, on eight devices; the teacher stays as it is."""
    monkeypatch.setattr(imagenet, "SYNTHETIC", [((1, 1), 8), ((1, 1), 4)])
    command = ["--size", "16", "--batch-size", "512", "--epochs", "2", "--out"]
    whole = imagenet.main([*command, str(tmp_path / "whole")])
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last[0].startswith("student  epoch 2  losses")
    assert all(map(math.isfinite, whole))

    batches, epochs = imagenet.batches, []

    def killed(images, args, sharding, epoch=None):
        epochs.append(epoch)
        for i, batch in enumerate(batches(images, args, sharding, epoch)):
            if len(epochs) == 5 and i == 2:  # teacher 0, 1, None; student 0, 1
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(imagenet, "batches", killed)
        imagenet.main([*command, str(tmp_path / "killed")])
    assert epochs == [0, 1, None, 0, 1]
    capsys.readouterr()
    again = imagenet.main([*command, str(tmp_path / "killed")])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "The teacher continues after epoch 2."
    assert printed[2] == "The student continues after epoch 1."
    assert printed[-2:] == last and again == whole


def test_imagenet_reads_folders_of_classes(tmp_path):
    for split in ("train", "val"):
        for n, name in enumerate(("cat", "dog")):
            (tmp_path / split / name).mkdir(parents=True)
            image = Image.new("L", (20 + n, 30), 100 * n)
            image.save(tmp_path / split / name / "0.png")
    count, classes, read = imagenet.open_images(tmp_path, train=True)
    assert (count, classes) == (2, 2)
    image, label = read(1)
    assert image.size == (21, 30) and label == 1
    for rng in (None, np.random.default_rng(0)):
        pixels = imagenet.crop(image, 16, rng)
        assert pixels.shape == (16, 16, 3) and np.all(pixels == 100)
