"""Records how a run was made: code, environment, command, times.

``record.json`` holds one entry a start: a resumed run adds another to those before.
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
def attempt(directory: Path, arguments: Sequence[str]) -> Iterator[None]:
    """Records a start of a run and how it ended.

    It is written at once, so a killed one is there without an end. Process 0 writes.

    Args:
        directory: Folder of the run; exists.
        arguments: Arguments of ``kdlab``.

    Raises:
        ValueError: If the record that is there cannot be read.
    """
    if jax.process_index() != 0:
        yield
        return
    path = directory / files.RECORD
    attempts = _read(path)
    entry: dict[str, Any] = {
        "command": shlex.join(["kdlab", *arguments]),
        "git": git_state(Path(__file__).parent),
        "environment": environment(),
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
        with contextlib.suppress(OSError):  # that of a full disk is on its way
            write_json(path, [*attempts, entry])


def environment() -> dict[str, Any]:
    """Versions and devices; nothing that names the machine or its user.

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


def git_state(folder: Path) -> dict[str, Any] | str:
    """Revision of the code, and whether files have changed since.

    Args:
        folder: Where the code lies.

    Returns:
        The revision and whether tracked files were changed since; a sentence if the
        code is not in a checkout, or git is not there.

    Examples:
        >>> git_state(Path("/"))
        'not in a git checkout'
    """
    # Another project's repository around an installed copy says nothing of the code.
    if not folder.is_dir() or not _git(folder, "ls-files", "."):
        return "not in a git checkout"
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"revision": _git(folder, "rev-parse", "HEAD"), "dirty": bool(changed)}


def _git(folder: Path, *arguments: str) -> str:
    """What a git command prints; nothing if it fails."""
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
        f"{path} is no list of starts, as this program writes it: move it away, and "
        "the same command begins a new one."
    )
