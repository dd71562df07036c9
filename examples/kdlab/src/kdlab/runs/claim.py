"""Claims the directory of an experiment for its settings and inputs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from kdlab.basics.reading import UserError, read_json
from kdlab.basics.writing import write_json
from kdlab.runs import files
from kdlab.settings.checks import describe_changes, flag
from kdlab.settings.config import Config


def claim(config: Config) -> None:
    """Creates the directory of an experiment, or checks its settings.

    Raises:
        ValueError: If it was created with other settings; nothing is changed.
    """
    directory, settings = config.directory, config.settings()
    if not (directory / files.CONFIG).exists():
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / files.CONFIG, settings)
        return
    # Settings that were added later had their default values.
    earlier = Config().settings() | files.read_settings(directory)
    changed = describe_changes(_by_flag(earlier), _by_flag(settings))
    if changed:
        raise ValueError(
            f"{directory} holds runs with other settings ({changed}): choose another "
            "--name."
        )


@contextlib.contextmanager
def claim_for_run(config: Config, data: str) -> Iterator[None]:
    """Claims the directory, and releases it if a first start fails before any run.

    Otherwise a mistyped path could be corrected only under another name.

    Args:
        config: The settings.
        data: Fingerprint of the data set.

    Raises:
        ValueError: If the directory was created with other settings or data.
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
    """Writes hashes of the inputs of the runs, or checks that they have not changed.

    Args:
        config: The settings.
        **hashes: Hash of the ``data``, or of the weights of the ``teacher``.

    Raises:
        ValueError: If the directory holds runs with other inputs; nothing is changed.
    """
    path = config.directory / files.INPUTS
    earlier = read_json(path) if path.exists() else {}
    for name, value in hashes.items():
        if earlier.get(name, value) != value:
            raise UserError(
                f"{config.directory} holds runs with other contents of "
                f"{_option(config, name)}, which has changed since. Choose another "
                f"--name; or remove {path} if only the modification times of its "
                "files have changed."
            )
    write_json(path, earlier | hashes)


def _option(config: Config, name: str) -> str:
    if name == "data":
        return f"--dataset {config.data.dataset}"
    weights: Path | None = config.networks.teacher_weights
    return f"--teacher-weights {weights}"


def _by_flag(settings: dict) -> dict:
    return {flag(name): value for name, value in settings.items()}
