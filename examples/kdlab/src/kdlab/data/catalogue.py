"""The catalogue of data sets."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from kdlab.basics.hint import did_you_mean
from kdlab.basics.importing import is_reference
from kdlab.basics.reading import UserError
from kdlab.data.dataset import Dataset
from kdlab.data.images import ImageSource, resize, to_dataset
from kdlab.data.sources import cifar, idx, packaged
from kdlab.data.sources.arrays import open_user_dataset, read_npz
from kdlab.data.sources.errors import missing_files, prepare_command
from kdlab.data.sources.folders import open_folder
from kdlab.data.sources.moments import MOMENTS
from kdlab.data.sources.synthetic import SIZES, synthetic
from kdlab.data.sources.tfds_source import TfdsSource, find_prepared, tfds_names
from kdlab.data.streamed import Streamed

# Where the Debian package `dataset-fashion-mnist` installs.
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

# Archives to put into the folder of manual downloads for `prepare`.
_ARCHIVES = {
    "imagenet2012": "TensorFlow, and ILSVRC2012_img_train.tar and "
    "ILSVRC2012_img_val.tar (https://image-net.org) in FILES",
    "tiny_imagenet": "tiny-imagenet-200.zip "
    "(http://cs231n.stanford.edu/tiny-imagenet-200.zip) in FILES",
}

# Side of the images of sets with one image size, which are streamed without cropping.
_WHOLE = {"tiny_imagenet": 64}


def _packaged(read: Callable[[], Dataset], _: Path | None) -> Dataset:
    return read()


def _cifar(name: str, data_dir: Path | None) -> Dataset:
    dataset = cifar.read_archives(name, data_dir) if data_dir else None
    if dataset or find_prepared(name, data_dir):
        return dataset or _prepared(name, data_dir)
    raise missing_files(
        name,
        files=cifar.ARCHIVES[name],
        folder=data_dir,
        how="https://www.cs.toronto.edu/~kriz/cifar.html, or prepare it with TFDS: "
        + prepare_command(name),
    )


def _idx(name: str, how: str, data_dir: Path | None) -> Dataset:
    folders = [data_dir, data_dir / name] if data_dir else []
    if name == "fashion_mnist":
        folders.append(DEBIAN_FASHION_MNIST)
    dataset = idx.read_files(name, folders)
    if dataset or find_prepared(name, data_dir):
        return dataset or _prepared(name, data_dir)
    raise missing_files(name, files=idx.FILES, folder=data_dir, how=how)


def _prepared(
    name: str, data_dir: Path | None, *, image_size: int | None = None
) -> Dataset:
    return to_dataset(
        name,
        open_images(name, "train", data_dir=data_dir),
        open_images(name, "test", data_dir=data_dir),
        image_size=image_size,
        moments=MOMENTS.get(name.removeprefix("tfds:")),
    )


def _stream_only(name: str, _: Path | None) -> Dataset:
    raise ValueError(f"{name} does not fit in memory: stream it, with open_streamed")


DATASETS: dict[str, Callable[[Path | None], Dataset]] = {
    "mnist5k": partial(_packaged, packaged.mnist5k),
    "digits": partial(_packaged, packaged.digits),
    "fashion_mnist": partial(
        _idx,
        "fashion_mnist",
        "on Debian or Ubuntu apt-get install dataset-fashion-mnist (found without "
        "data_dir), elsewhere https://github.com/zalandoresearch/fashion-mnist",
    ),
    "mnist": partial(_idx, "mnist", "https://yann.lecun.com/exdb/mnist or a mirror"),
    "cifar10": partial(_cifar, "cifar10"),
    "cifar100": partial(_cifar, "cifar100"),
    "tiny_imagenet": partial(_prepared, "tiny_imagenet"),
    "imagenet2012": partial(_stream_only, "imagenet2012"),
    **{name: partial(_packaged, partial(synthetic, name)) for name in SIZES},
}


def load(
    name: str, *, data_dir: Path | str | None = None, image_size: int | None = None
) -> Dataset:
    """Loads a data set into memory.

    Args:
        name: A key of `DATASETS`; the path of a folder (optionally with the prefix
            ``folder:``) with class folders in ``train`` and in ``val`` or ``test``; the
            path of an ``.npz`` file; ``MODULE:FUNCTION`` for your own function, see
            :mod:`kdlab.data.sources.arrays`; or ``tfds:NAME`` (``NAME`` alone if
            `DATASETS` lacks it) for a set that TFDS prepared in `data_dir`.
        data_dir: Folder of data sets that do not come with a package.
        image_size: Side to which all images are resized; None: their own size.

    Returns:
        The images and labels, on the host.

    Raises:
        FileNotFoundError: If files are missing; the message says which, where, and how
            to get them.
        ValueError: If there is no data set of that name, or it does not fit in memory.

    Examples:
        >>> load("digits").train_images.shape
        (1297, 8, 8, 1)
    """
    folder = None if data_dir is None else Path(data_dir).expanduser()
    if not (is_reference(name) or name.endswith(".npz") or name in DATASETS):
        return _prepared(name, folder, image_size=image_size)
    if is_reference(name):
        dataset = open_user_dataset(name)
    elif name.endswith(".npz"):
        dataset = read_npz(Path(name).expanduser())
    else:
        dataset = DATASETS[name](folder)
    return dataset if image_size is None else resize(dataset, image_size)


def open_dataset(
    name: str, *, data_dir: Path | str | None = None, image_size: int | None = None
) -> Dataset | Streamed:
    """Loads a data set, or opens it if it is streamed; see `load`, `open_streamed`."""
    get = open_streamed if is_streamed(name) else load
    return get(name, data_dir=data_dir, image_size=image_size)


def open_streamed(
    name: str, *, data_dir: Path | str | None = None, image_size: int | None = None
) -> Streamed:
    """Opens a data set that is decoded on the fly.

    Args:
        name: As for `open_images`, optionally with the prefix ``stream:``.
        data_dir: Root of the prepared sets.
        image_size: Side of the output images; by default 64 for ``tiny_imagenet``, its
            original size, and 224 for others, which are resized to 8/7 of it (256 for
            224) before the centre is cropped.

    Returns:
        The opened data set.

    Raises:
        FileNotFoundError: If the set is not prepared; the message says how to do it.
        ValueError: If there is no data set of that name.
    """
    short = name.removeprefix("stream:").removeprefix("tfds:")
    whole = _WHOLE.get(short)
    size = image_size or whole or 224
    train, test = (
        open_images(short, split, data_dir=data_dir) for split in ("train", "test")
    )
    # Folders most often hold photographs as well.
    moments = MOMENTS.get(short, MOMENTS["imagenet2012"])
    mean, std = (x[:1] if train.mode == "L" else x for x in moments)
    resize = size if size == whole else round(size * 8 / 7)
    return Streamed(name, train, test, mean, std, size, resize)


def is_streamed(name: str) -> bool:
    """Returns whether a data set is streamed: on request, or because of its size."""
    short = name.removeprefix("tfds:")
    return name.startswith("stream:") or short == "imagenet2012"


def open_images(
    name: str, split: Literal["train", "test"], *, data_dir: Path | str | None = None
) -> ImageSource:
    """Opens the encoded images of a split without reading them.

    Args:
        name: ``imagenet2012``, ``tiny_imagenet``, ``folder:PATH``, ``tfds:NAME``, or
            another set that TFDS prepared in `data_dir`.
        split: ``train`` or ``test``; the latter is the validation split of sets whose
            test labels are not public.
        data_dir: Root of the prepared sets.

    Returns:
        A sequence of encoded images and labels.

    Raises:
        FileNotFoundError: If the set is not prepared; the message says how to do it.
        ValueError: If there is no data set of that name.
    """
    if name.startswith("folder:"):
        return open_folder(Path(name.removeprefix("folder:")).expanduser(), split)
    short = name.removeprefix("tfds:")
    folder = None if data_dir is None else Path(data_dir).expanduser()
    prepared = find_prepared(short, folder)
    if prepared is not None:
        return TfdsSource(prepared, split)
    if name not in DATASETS and Path(name).expanduser().is_dir():
        return open_folder(Path(name).expanduser(), split)
    if getattr(DATASETS.get(short), "func", None) is _packaged:
        raise UserError(
            f"{name}: {short} is loaded into memory, not prepared by TFDS: give "
            f"--dataset {short}"
        )
    known = [*DATASETS, *tfds_names()]
    if short.split("/")[0] not in known:
        raise _unknown(name, known)
    where = f"not found in {folder}" if folder else "no data_dir (--data-dir) is given"
    needs = _ARCHIVES.get(
        short, "TensorFlow, and network access or the archives in FILES"
    )
    raise FileNotFoundError(
        f"{name}: {where}, expected DATA/{short}/VERSION/dataset_info.json. To prepare "
        f"it: {prepare_command(short)}; this needs {needs}"
    )


def _unknown(name: str, known: list[str]) -> ValueError:
    hint = did_you_mean(name.removeprefix("tfds:"), known)
    return ValueError(
        f"no data set named {name!r}; {hint}choose one of: {', '.join(DATASETS)}, "
        "PATH (of a folder or an .npz file), MODULE:FUNCTION, tfds:NAME or, for "
        "streaming, stream:NAME"
    )
