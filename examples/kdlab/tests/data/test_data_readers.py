import importlib.util
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

import _archives
from kdlab.data import catalogue, load, open_dataset
from kdlab.data.catalogue import open_images
from kdlab.data.images import decode
from kdlab.data.sources.idx import read_idx
from kdlab.data.sources.prepare import prepare
from kdlab.data.sources.tfds_source import TfdsSource, find_prepared
from kdlab.data.sources.tfrecord import TFRecords


@pytest.fixture(autouse=True)
def _no_debian_package(monkeypatch, tmp_path):
    """The machine may or may not have Fashion-MNIST installed."""
    monkeypatch.setattr(catalogue, "DEBIAN_FASHION_MNIST", tmp_path / "absent")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Returns the root of a set that TFDS itself prepared, in two configs."""
    root = tmp_path_factory.mktemp("tfds")
    for config in ("grey", "colour"):
        _archives.write_tfds(root, config)
    return root


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_are_read(name, tmp_path):
    arrays = list(_archives.write_idx(tmp_path / name).values())
    data = load(name, data_dir=tmp_path)
    np.testing.assert_array_equal(data.train_images[..., 0], arrays[0])
    np.testing.assert_array_equal(data.train_labels, arrays[1])
    np.testing.assert_array_equal(data.test_images[..., 0], arrays[2])
    np.testing.assert_array_equal(data.test_labels, arrays[3])
    assert data.train_images.shape == (6, 28, 28, 1)


def test_fashion_mnist_is_found_where_debian_puts_it(monkeypatch, tmp_path):
    monkeypatch.setattr(catalogue, "DEBIAN_FASHION_MNIST", tmp_path)
    _archives.write_idx(tmp_path)
    assert len(load("fashion_mnist").train_images) == 6
    with pytest.raises(FileNotFoundError):
        load("mnist")


def test_idx_files_may_be_uncompressed(tmp_path):
    header = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3])
    path = tmp_path / "x"
    path.write_bytes(header + bytes(range(6)))
    assert read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x0d\x01\0\0\0\x01" + bytes(4), "not an IDX file"),  # floats
        (b"\0\0\x08\x01\0\0\0\x05" + bytes(4), r"expected 13 for the shape \[5\]"),
    ],
)
def test_broken_idx_files_are_refused(content, message, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_idx(path)


@pytest.mark.parametrize("kind", ["binary", "python"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_archives_are_read(name, kind, tmp_path):
    parts = _archives.write_cifar(tmp_path, name, kind)
    data = load(name, data_dir=tmp_path)
    pixels = np.concatenate([part[0] for part in parts[:-1]])
    assert data.train_images.shape == (len(pixels), 32, 32, 3)
    # Published as all red pixels by rows, then all green, then all blue.
    for n, y, x, c in [(0, 0, 0, 0), (1, 3, 5, 2), (2, 31, 30, 1)]:
        assert data.train_images[n, y, x, c] == pixels[n, 1024 * c + 32 * y + x]
    fine = np.concatenate([part[2] for part in parts[:-1]])
    np.testing.assert_array_equal(data.train_labels, fine)
    np.testing.assert_array_equal(data.test_labels, parts[-1][2])
    assert data.num_classes == int(name.removeprefix("cifar"))


def test_a_pickle_in_a_cifar_archive_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("ran",)

    member = tmp_path / "train"
    member.write_bytes(pickle.dumps(Evil(), protocol=2))
    with tarfile.open(tmp_path / "cifar-100-python.tar.gz", "w:gz") as tar:
        tar.add(member, "cifar-100-python/train")
    with pytest.raises(ValueError, match="does not belong in CIFAR"):
        load("cifar100", data_dir=tmp_path)


def test_an_incomplete_cifar_archive_is_refused(tmp_path):
    with tarfile.open(tmp_path / "cifar-100-binary.tar.gz", "w:gz"):
        pass
    with pytest.raises(ValueError, match=r"lacks cifar-100-binary/train\.bin"):
        load("cifar100", data_dir=tmp_path)


@pytest.mark.parametrize(("config", "channels"), [("grey", 1), ("colour", 3)])
def test_a_set_prepared_by_tfds_is_read(prepared, config, channels):
    for name in (f"tiny_digits/{config}", f"tfds:tiny_digits/{config}"):
        data = load(name, data_dir=prepared)
        np.testing.assert_array_equal(
            data.train_images, _archives.random_images(9, 8, channels, seed=0)
        )
        np.testing.assert_array_equal(
            data.test_images, _archives.random_images(6, 8, channels, seed=1)
        )
        assert data.train_labels.tolist() == [0, 1, 2] * 3
        assert (data.num_classes, len(data.mean)) == (3, channels)


def test_tfrecord_files_hold_the_same(prepared, tmp_path):
    folder = _archives.write_tfds(tmp_path, "colour")
    _archives.to_tfrecord(folder)
    assert not list(folder.glob("*array_record*"))
    data = load("tiny_digits", data_dir=tmp_path)
    original = load("tiny_digits/colour", data_dir=prepared)
    np.testing.assert_array_equal(data.train_images, original.train_images)
    np.testing.assert_array_equal(data.test_images, original.test_images)
    np.testing.assert_array_equal(data.test_labels, original.test_labels)


def test_a_truncated_tfrecord_is_refused(tmp_path):
    folder = _archives.write_tfds(tmp_path, "colour")
    _archives.to_tfrecord(folder)
    (path,) = folder.glob("*train*")
    assert len(TFRecords([path])) == 9
    content = path.read_bytes()
    for left in (len(content) - 1, len(content) - 5, 11, 3):
        path.write_bytes(content[:left])
        with pytest.raises(ValueError, match="truncated"):
            TFRecords([path])
    path.write_bytes(b"")
    assert len(TFRecords([path])) == 0


def test_the_configs_of_a_set_are_told_apart(prepared):
    with pytest.raises(ValueError, match="use tiny_digits/colour, tiny_digits/grey"):
        load("tiny_digits", data_dir=prepared)


def test_the_newest_version_is_taken(tmp_path):
    for version in ("1.9.0", "1.10.0"):
        (tmp_path / "x" / version).mkdir(parents=True)
        (tmp_path / "x" / version / "dataset_info.json").touch()
    assert find_prepared("x", tmp_path) == tmp_path / "x" / "1.10.0"
    assert find_prepared("x", tmp_path / "x" / "1.9.0") == tmp_path / "x" / "1.9.0"
    assert find_prepared("y", tmp_path / "x" / "1.9.0") is None
    assert find_prepared("y", tmp_path) is None


def test_cifar_prepared_by_tfds_takes_the_published_moments(prepared, tmp_path):
    (tmp_path / "cifar100").symlink_to(prepared / "tiny_digits" / "colour")
    data = load("cifar100", data_dir=tmp_path)
    assert data.mean == (0.5071, 0.4867, 0.4408)
    assert data.num_classes == 3


def test_a_split_that_is_not_there_is_named(prepared):
    folder = find_prepared("tiny_digits/grey", prepared)
    assert folder is not None
    with pytest.raises(ValueError, match="it has: train, test"):
        TfdsSource(folder, "val")


def test_a_source_can_be_sent_to_another_process(prepared):
    source = open_images("tiny_digits/grey", "test", data_dir=prepared)
    copy = pickle.loads(pickle.dumps(source))
    assert [copy[i] for i in range(6)] == [source[i] for i in range(6)]


def test_imagenet_evaluates_on_the_split_with_labels(tmp_path):
    _archives.write_imagenet(tmp_path)
    source = open_images("imagenet2012", "test", data_dir=tmp_path)
    assert sorted(source[i].label for i in range(len(source))) == [500, 501, 502, 503]
    assert source.num_classes == 1000
    with pytest.raises(ValueError, match="does not fit in memory"):
        load("imagenet2012", data_dir=tmp_path)
    with pytest.raises(ValueError, match="pass image_size"):
        load("tfds:imagenet2012", data_dir=tmp_path)
    data = load("tfds:imagenet2012", data_dir=tmp_path, image_size=24)
    assert data.train_images.shape == (6, 24, 24, 3)


def test_tiny_imagenet_is_prepared_from_its_zip(tmp_path):
    manual, data_dir = tmp_path / "manual", tmp_path / "data"
    manual.mkdir()
    _archives.write_tiny_imagenet(manual)
    # In a separate process: the name of the set is registered once per process.
    command = ["tiny_imagenet", "--data-dir", data_dir, "--manual-dir", manual]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "kdlab", "prepare", *command],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == str(data_dir / "tiny_imagenet" / "1.0.0")
    data = load("tiny_imagenet", data_dir=data_dir)
    assert data.train_images.shape == (200, 64, 64, 3)
    assert data.num_classes == 200
    # Training images are as bright as their class, in the order of the sorted names.
    levels = np.round(data.train_images.mean((1, 2, 3)))
    np.testing.assert_array_equal(levels, data.train_labels)
    # Validation image i is of brightness 40 i and of class 7 i, says the table.
    validation = np.round(data.test_images.mean((1, 2, 3)) / 40)
    np.testing.assert_array_equal(7 * validation, data.test_labels)
    assert data.mean == (0.4802, 0.4481, 0.3975)


def test_a_set_of_the_catalogue_is_prepared_as_array_record(tmp_path, monkeypatch):
    # This one needs no TensorFlow, but the function cannot know that.
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    folder = prepare("tfds:tiny_digits/grey", tmp_path)
    assert folder == tmp_path / "tiny_digits" / "grey" / "1.2.0"
    assert len(load("tiny_digits/grey", data_dir=tmp_path).test_images) == 6


def test_preparing_says_what_is_missing(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name: None if name == "tensorflow" else find(name),
    )
    with pytest.raises(ModuleNotFoundError, match="pip install tensorflow-cpu"):
        prepare("cifar100", tmp_path)
    with pytest.raises(ValueError, match="nothing to prepare for 'digits8'"):
        prepare("digits8", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"put tiny-imagenet-200\.zip into"):
        prepare("tiny_imagenet", tmp_path)


@pytest.mark.parametrize("test", ["val", "test", "validation"])
def test_folders_are_read(tmp_path, test):
    _archives.write_folders(tmp_path, test=test)
    data = load(f"folder:{tmp_path}")
    assert data.train_labels.tolist() == [0] * 4 + [1] * 4
    assert data.train_images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 100, 101, 102, 103]
    assert data.test_images[:, 0, 0, 0].tolist() == [0, 1, 100, 101]
    assert (data.num_classes, data.image_shape) == (2, (8, 8, 3))


def test_folders_of_several_sizes_need_one(tmp_path):
    _archives.write_folders(tmp_path, sizes=(8, 10))
    with pytest.raises(ValueError, match="pass image_size"):
        load(f"folder:{tmp_path}")
    data = load(f"folder:{tmp_path}", image_size=6)
    assert data.train_images.shape == (8, 6, 6, 3)
    assert data.train_images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 100, 101, 102, 103]


def test_broken_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="one folder of images per class"):
        load(f"folder:{tmp_path}")
    _archives.write_folders(tmp_path)
    (tmp_path / "val" / "bird").mkdir()
    with pytest.raises(ValueError, match="class folder 'bird'"):
        load(f"folder:{tmp_path}")
    (tmp_path / "empty" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "empty" / "test").mkdir()
    with pytest.raises(FileNotFoundError, match="no image in"):
        load(f"folder:{tmp_path / 'empty'}")


def test_decoding_resizes_the_whole_then_cuts_out_the_middle():
    pixels = _archives.random_images(1, 30)[0, :10]
    image = decode(_archives.encode(pixels), "RGB", 5)
    resized = Image.fromarray(pixels).resize((15, 5), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(image, np.asarray(resized)[:, 5:10])


def test_a_folder_in_place_of_an_archive_is_noticed(tmp_path):
    """It was unpacked, or left by an interrupted download."""
    (tmp_path / "cifar-10-python.tar.gz").mkdir()
    with pytest.raises(FileNotFoundError, match=r"python\.tar\.gz is a folder, not"):
        load("cifar10", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere, which is missing"):
        load("cifar10", data_dir=tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["stream:digits", "stream:synthetic-tiny"])
def test_what_comes_in_a_package_is_not_streamed(name, tmp_path):
    short = name.removeprefix("stream:")
    for data_dir in (None, tmp_path):
        with pytest.raises(ValueError, match=f"into memory.*give --dataset {short}$"):
            open_dataset(name, data_dir=data_dir)


def test_a_set_without_images_is_refused(tmp_path):
    _archives.write_idx(tmp_path, num_test=0)
    with pytest.raises(ValueError, match=f"{tmp_path} cannot.*no test images"):
        load("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mnist", "train-images-idx3-ubyte.gz"),
        ("fashion_mnist", "apt-get install dataset-fashion-mnist"),
        ("cifar10", "cifar-10-binary.tar.gz or cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-binary.tar.gz or cifar-100-python.tar.gz"),
        ("tiny_imagenet", "kdlab prepare tiny_imagenet"),
        ("tiny_imagenet", "tiny-imagenet-200.zip"),
        ("eurosat", "kdlab prepare eurosat"),
        ("tfds:imagenet2012", "ILSVRC2012_img_train.tar"),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_absent_data_say_how_to_get_them(name, wanted, given, tmp_path):
    data_dir = tmp_path if given else None
    with pytest.raises(FileNotFoundError) as error:
        load(name, data_dir=data_dir)
    assert wanted in str(error.value)
    assert (str(tmp_path) if given else "data_dir") in str(error.value)
