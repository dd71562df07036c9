"""Converts downloaded archives to files that training reads without TensorFlow."""

import importlib.util
from pathlib import Path

from kdlab.data.sources.errors import missing_files, prepare_command
from kdlab.data.sources.tfds_source import tfds_names


def prepare(name: str, data_dir: Path, manual_dir: Path | None = None) -> Path:
    """Prepares a data set as ArrayRecord files below `data_dir`, once.

    Args:
        name: ``tiny_imagenet``, ``imagenet2012``, or any name in the TFDS catalogue,
            with or without the prefix ``tfds:``.
        data_dir: Root of the prepared sets; the result is ``data_dir/name/version``.
        manual_dir: Folder of manually downloaded archives, required for
            ``imagenet2012`` and tried first for others. ``tiny_imagenet`` is also
            searched for in `data_dir`.

    Returns:
        The folder of the prepared set.

    Raises:
        FileNotFoundError: If an archive is missing.
        ModuleNotFoundError: If TensorFlow is needed and not installed.
        ValueError: If there is nothing to prepare under that name.
    """
    import tensorflow_datasets as tfds

    data_dir = Path(data_dir).expanduser()
    manual_dir = None if manual_dir is None else Path(manual_dir).expanduser()
    name = name.removeprefix("tfds:")
    if name == "tiny_imagenet":
        return _prepare_tiny_imagenet(data_dir, manual_dir)
    if name.split("/")[0] not in tfds_names():
        raise ValueError(
            f"nothing to prepare for {name!r}: it is neither tiny_imagenet nor in the "
            "catalogue of TFDS"
        )
    if importlib.util.find_spec("tensorflow") is None:
        raise ModuleNotFoundError(
            f"preparing {name} needs TensorFlow, once; training does not. Run: "
            f"pip install tensorflow-cpu && {prepare_command(name)}"
        )
    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    builder.download_and_prepare(download_config=config)
    return Path(builder.data_path)


def _prepare_tiny_imagenet(data_dir: Path, manual_dir: Path | None) -> Path:
    import tensorflow_datasets as tfds

    from kdlab.data.sources import tiny_imagenet

    folders = [manual_dir, data_dir] if manual_dir else [data_dir]
    holders = [path for path in folders if (path / tiny_imagenet.ARCHIVE).is_file()]
    if not holders:
        raise missing_files(
            "tiny_imagenet",
            files=[tiny_imagenet.ARCHIVE],
            folder=folders[0],
            how=f"http://cs231n.stanford.edu/{tiny_imagenet.ARCHIVE}",
        )
    builder = tiny_imagenet.TinyImagenet(data_dir=data_dir, file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=holders[0])
    builder.download_and_prepare(download_config=config)
    return Path(builder.data_path)
