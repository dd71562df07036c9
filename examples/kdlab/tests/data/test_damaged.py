"""Every reader under every kind of damage: one error that names the file."""

import gzip

import pytest

import _archives
from _models import filled
from kdlab.data import load, open_streamed
from kdlab.data.stream import eval_stream
from kdlab.models import weights

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
HTML = b"<!DOCTYPE html><html><body>403 Forbidden</body></html>"


def cut(share):
    return lambda content: content[: int(share * len(content))]


def flip(place):
    def damage(content):
        changed = bytearray(content)
        changed[place % len(content)] ^= 255
        return bytes(changed)

    return damage


# Damage that no reader can miss; the other kind may hit bytes that do not matter.
KINDS = {
    "empty": lambda _: b"",
    "a pointer": lambda _: LFS,
    "a page": lambda _: HTML,
    "the first bytes": lambda content: content[:3],
    **{f"{share:.0%}": cut(share) for share in (0.1, 0.5, 0.9)},
}
FLIPS = {f"byte {place}": flip(place) for place in (0, 1, 3, 5, 8, 13, 40, -6, -1)}


def idx(root):
    _archives.write_idx(root)
    return root / "train-labels-idx1-ubyte.gz", lambda: load("mnist", data_dir=root)


def raw_idx(root):
    _archives.write_idx(root)
    for path in root.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    return root / "t10k-images-idx3-ubyte", lambda: load("mnist", data_dir=root)


def cifar(kind):
    def make(root):
        _archives.write_cifar(root, "cifar100", kind)
        path = root / f"cifar-100-{kind}.tar.gz"
        return path, lambda: load("cifar100", data_dir=root)

    return make


def folders(root):
    """Noise, since half of its file may hold all of a constant image."""
    _archives.write_folders(root)
    path = root / "train" / "dog" / "images" / "2.png"
    path.write_bytes(_archives.encode(_archives.random_images(1, 8)[0]))
    return path


def folder(root):
    return folders(root), lambda: load(f"folder:{root}")


def streamed_folder(root):
    path = folders(root)

    def read():
        source = open_streamed(f"stream:folder:{root}", image_size=7).train
        alone = {"process_index": 0, "process_count": 1}
        list(eval_stream(source, batch_size=2, image_size=7, resize=8, **alone))

    return path, read


def prepared(file_format):
    def make(root):
        place = _archives.write_tfds(root, "colour")
        if file_format == "tfrecord":
            _archives.to_tfrecord(place)
        (path,) = place.glob(f"*train.{file_format}*")
        return path, lambda: load("tiny_digits", data_dir=root)

    return make


def described(name):
    def make(root):
        path = _archives.write_tfds(root, "colour") / name
        return path, lambda: load("tiny_digits", data_dir=root)

    return make


def published(root):
    model = filled("resnet8", num_classes=4, image_shape=(24, 24, 3))
    path = root / "teacher.safetensors"
    weights.write_safetensors(path, "resnet8", model)
    return path, lambda: weights.fill("resnet8", model, path)


READERS = {
    "IDX, compressed": idx,
    "IDX": raw_idx,
    "CIFAR, binary": cifar("binary"),
    "CIFAR, pickles": cifar("python"),
    "class folders": folder,
    "class folders, streamed": streamed_folder,
    "ArrayRecord": prepared("array_record"),
    "TFRecord": prepared("tfrecord"),
    "description of TFDS": described("dataset_info.json"),
    "features of TFDS": described("features.json"),
    "safetensors": published,
}


@pytest.fixture(scope="module", params=READERS)
def reader(request, tmp_path_factory):
    """Returns an intact file and its reader."""
    path, read = READERS[request.param](tmp_path_factory.mktemp("sound"))
    read()
    return path, read


@pytest.fixture
def damaged(reader):
    """Damages the file, and restores it afterwards."""
    path, read = reader
    content = path.read_bytes()
    yield lambda damage: path.write_bytes(damage(content)), path, read
    path.write_bytes(content)


def complaint(read):
    """Returns the message, or None if nothing was noticed."""
    try:
        read()
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_named_with_its_file(damaged, kind):
    damage, path, read = damaged
    damage(KINDS[kind])
    text = complaint(read)
    assert text is not None
    # Entries of TFDS files are named by their number in the split.
    assert str(path.parent if "split" in text else path) in text
    assert "\n" not in text
    if kind == "a pointer" and str(path) in text:
        assert "git lfs pull" in text
    if kind == "a page" and str(path) in text:
        assert "is a web page" in text


@pytest.mark.parametrize("kind", FLIPS)
def test_a_flipped_byte_raises_nothing_else(damaged, kind):
    """Pixels and labels have no checksum in every format: it may pass."""
    damage, path, read = damaged
    damage(FLIPS[kind])
    text = complaint(read)
    assert text is None or (str(path.parent) in text and "\n" not in text)


def test_the_checksum_of_an_archive_is_compared(tmp_path):
    """The checksum comes after the last member."""
    _archives.write_cifar(tmp_path, "cifar100", "binary")
    path = tmp_path / "cifar-100-binary.tar.gz"
    path.write_bytes(flip(-6)(path.read_bytes()))
    assert "CRC check failed" in (
        complaint(lambda: load("cifar100", data_dir=tmp_path)) or ""
    )
