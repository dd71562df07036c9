"""Error messages for missing data."""

from collections.abc import Sequence
from pathlib import Path


def missing_files(
    name: str, *, files: Sequence[str], folder: Path | None, how: str
) -> FileNotFoundError:
    """Returns an error that says which files to put where, and how to get them.

    Args:
        name: Name of the data set.
        files: Names of the files.
        folder: Folder that was searched; None if no folder was given.
        how: How to get the files.
    """
    where = folder or "a folder and give it as data_dir (--data-dir)"
    found = ""
    if folder and not folder.is_dir():
        found = ", which is " + (
            "a file, not a folder" if folder.exists() else "missing"
        )
    elif folder:
        same = [folder / name for name in files if (folder / name).is_dir()]
        found = "".join(f"; {path} is a folder, not the file" for path in same)
    return FileNotFoundError(
        f"{name}: put {' or '.join(files) if len(files) == 2 else ', '.join(files)} "
        f"into {where}{found}. To get them: {how}"
    )


def prepare_command(name: str) -> str:
    """Returns the command that prepares a data set."""
    return f"kdlab prepare {name} --data-dir DATA --manual-dir FILES"
