"""An experiment takes a directory, or finds there what it was made from."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from kdlab.basics.reading import UserError, read_json
from kdlab.basics.writing import write_json
from kdlab.runs import files
from kdlab.settings.checks import differences, flag
from kdlab.settings.config import Config


def claim(config: Config) -> None:
    """Creates the directory of an experiment, or checks its settings.

    Raises:
        ValueError: If it was made with other settings; nothing is changed then.
    """
    directory, settings = config.directory, config.settings()
    if not (directory / files.CONFIG).exists():
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / files.CONFIG, settings)
        return
    # A setting that came later had its default value then.
    earlier = Config().settings() | files.read_settings(directory)
    changed = differences(_by_flag(earlier), _by_flag(settings))
    if changed:
        raise ValueError(
            f"{directory} holds runs with other settings ({changed}): choose another "
            "--name."
        )


@contextlib.contextmanager
def claimed(config: Config, data: str) -> Iterator[None]:
    """Claims the directory, and gives it up if nothing came of a first start.

    Otherwise a mistyped path could only be corrected under another name.

    Args:
        config: The settings.
        data: Fingerprint of the data set.

    Raises:
        ValueError: If the directory was made with other settings or data.
    """
    directory = config.directory
    first = not (directory / files.CONFIG).exists()
    claim(config)
    claim_inputs(config, data=data)
    try:
        yield
    except BaseException:
        if first and not any(directory.glob("*/seed*")):
            for name in (files.CONFIG, files.INPUTS, files.TEACHER):
                (directory / name).unlink(missing_ok=True)
        raise


def claim_inputs(config: Config, **hashes: str) -> None:
    """Writes what the runs are made from, or checks that it has not changed.

    Args:
        config: The settings.
        **hashes: Hash of the ``data``, or of the weights of the ``teacher``.

    Raises:
        ValueError: If the directory holds runs from others; nothing is changed.
    """
    path = config.directory / files.INPUTS
    earlier = read_json(path) if path.exists() else {}
    for name, value in hashes.items():
        if earlier.get(name, value) != value:
            raise UserError(
                f"{config.directory} holds runs from another state of "
                f"{_option(config, name)}: its contents have changed since. Choose "
                f"another --name; or remove {path}, if only the times of its files "
                "are others."
            )
    write_json(path, earlier | hashes)


def _option(config: Config, name: str) -> str:
    if name == "data":
        return f"--dataset {config.data.dataset}"
    weights: Path | None = config.networks.teacher_weights
    return f"--teacher-weights {weights}"


def _by_flag(settings: dict) -> dict:
    return {flag(name): value for name, value in settings.items()}
