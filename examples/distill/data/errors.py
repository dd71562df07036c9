"""What to say when the data are not there."""

from collections.abc import Sequence
from pathlib import Path


def missing_files(
    name: str, files: Sequence[str], folders: Sequence[Path], how: str
) -> FileNotFoundError:
    """An error that says which files to put where, and how to get them.

    Args:
        name: Of the data set.
        files: Names of the files that would do.
        folders: Where they were looked for; empty if no folder was given.
        how: How to get or prepare them.
    """
    where = ", ".join(map(str, folders)) or "a folder given as data_dir"
    return FileNotFoundError(
        f"{name}: put {', '.join(files)} into {where}. To get them: {how}"
    )
