"""Records the provenance of a run: code, environment, command, times.

``record.json`` holds one entry per start; a resumed run appends another.
"""

import contextlib
import datetime
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from kdlab.basics.writing import write_json
from kdlab.runs import files

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "kdopt")


@contextlib.contextmanager
def record_start(directory: Path, arguments: Sequence[str]) -> Iterator[None]:
    """Records the start of a run and its outcome.

    The record is written at once, so that a killed run has one without an end. Only
    process 0 writes.

    Args:
        directory: Existing folder of the run.
        arguments: Arguments of ``kdlab``.

    Raises:
        ValueError: If the existing record cannot be read.
    """
    if jax.process_index() != 0:
        yield
        return
    path = directory / files.RECORD
    attempts = _read(path)
    entry: dict[str, Any] = {
        "command": shlex.join(["kdlab", *arguments]),
        "git": describe_git(Path(__file__).parent),
        "environment": describe_environment(),
        "started": _now(),
        "ended": None,
        "outcome": "running or killed",
    }

    write_json(path, [*attempts, entry])
    try:
        yield
        entry["outcome"] = "finished"
    except KeyboardInterrupt:
        entry["outcome"] = "interrupted"
        raise
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None and error.errno:
            error.filename = str(directory)  # a full disk does not name the file
        entry["outcome"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        entry["ended"] = _now()
        with contextlib.suppress(OSError):  # a full disk is already being reported
            write_json(path, [*attempts, entry])


def describe_environment() -> dict[str, Any]:
    """Returns versions and devices, but nothing that identifies machine or user.

    Returns:
        JSON values by name.
    """
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: _version(name) for name in _PACKAGES},
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
    }


def describe_git(folder: Path) -> dict[str, Any] | str:
    """Returns the revision of the code, and whether files have changed since.

    Args:
        folder: Folder of the code.

    Returns:
        The revision and whether tracked files have changed since; a sentence if the
        code is not in a checkout or git is missing.

    Examples:
        >>> describe_git(Path("/"))
        'not in a git checkout'
    """
    # A repository that merely contains an installed copy says nothing about the code.
    if not folder.is_dir() or not _git(folder, "ls-files", "."):
        return "not in a git checkout"
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"revision": _git(folder, "rev-parse", "HEAD"), "dirty": bool(changed)}


def _git(folder: Path, *arguments: str) -> str:
    """Returns the output of a git command; empty if it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        module = sys.modules.get(package)
        return getattr(module, "__version__", None)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _read(path: Path) -> list[Any]:
    if not path.exists():
        return []
    try:
        attempts = json.loads(path.read_text())
        if isinstance(attempts, list):
            return attempts
    except ValueError:
        pass
    raise ValueError(
        f"{path} is not a list of starts as this program writes it: move it away, and "
        "the same command writes a new one."
    )
