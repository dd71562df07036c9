"""Turns whatever goes wrong while a file is read into one error with its path."""

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

AGAIN = "Download or copy it again."
_LFS = b"version https://git-lfs"
_PAGES = (b"<!doctype", b"<html", b"<?xml")  # object stores report errors as XML
_SAME_NAME = (ValueError, EOFError, OSError)  # clear without the name of the type
_LONGEST = 300  # characters of a library's message
_ROOM = "Free some space for --runs; the same command resumes from the last checkpoint."
_RIGHTS = (
    "Change its permissions (chmod), or choose another folder (--runs, --data-dir)."
)
_REMEDIES = {
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "Choose a folder that you may write to (--runs).",
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.ENOENT: "Is the path right (--runs, --data-dir)?",
    errno.ENOTDIR: "A file is where a folder is expected: choose another --runs.",
    errno.EEXIST: "A file is where a folder is expected: choose another --runs.",
    errno.EISDIR: "A folder is where a file is expected: move it away.",
    errno.ENAMETOOLONG: "Choose a shorter --name.",
}


class UserError(ValueError):
    """An error that the user can fix: the message says what is wrong and what to do."""


@contextlib.contextmanager
def reading(place: Path | str, advice: str = AGAIN) -> Iterator[None]:
    """Turns every error of a reader into a :class:`UserError` that names the file.

    Given damaged bytes, decoders raise almost anything, from ``EOFError`` to
    ``AttributeError``, so only the reader itself belongs in the block.

    Args:
        place: The file or folder, or a text that names a part of one.
        advice: What to do if the file itself does not show the cause.

    Raises:
        UserError: With the path, the cause and what to do.
        ImportError: If the file looks sound but a package to read it is missing.

    Examples:
        >>> import gzip
        >>> with reading("labels.gz"):
        ...     gzip.decompress(b"<html>")
        Traceback (most recent call last):
        kdlab.basics.reading.UserError: labels.gz cannot be read: Not a gzipped file
        (b'<h'). Download or copy it again.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        path = Path(place)
        known = _plain_cause(path)
        if isinstance(error, ImportError) and not (known or _is_empty(path)):
            raise
        cause, remedy = known or _cause(path, error, advice)
        raise UserError(f"{place} cannot be read: {cause}. {remedy}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads the object in a JSON file that this program wrote.

    Raises:
        UserError: If the file is damaged or holds something else.
    """
    with reading(path, "Remove it and start the same command again."):
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, got {type(content).__name__}")
        return content


def _plain_cause(path: Path) -> tuple[str, str] | None:
    """Recognizes pointers and web pages in place of data; returns cause and remedy."""
    try:
        files = [path]
        if (path / "_METADATA").exists():  # a checkpoint of Orbax: any of its files
            files = [file for file in path.rglob("*") if file.is_file()]
        for file in files:
            with file.open("rb") as content:
                start = content.read(64)
            where = "it" if file == path else f"{file.relative_to(path)}"
            if start.startswith(_LFS):
                what = f"{where} is a Git LFS pointer, not the file itself"
                return what, "Run `git lfs pull` in its repository."
            if start.lstrip().lower().startswith(_PAGES):
                what = f"{where} is a web page or an error message, not the file itself"
                return what, AGAIN
    except OSError:  # the reader's own error says more
        pass
    return None


def _is_empty(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == 0


def _cause(path: Path, error: Exception, advice: str) -> tuple[str, str]:
    match error:
        case FileNotFoundError() if path.is_symlink():
            return f"it is a link to {os.readlink(path)}, which does not exist", advice
        case FileNotFoundError() if not path.exists():
            return "it does not exist", advice
        case PermissionError():
            name = error.filename or path
            return f"permission denied for {name}", f"Run `chmod -R u+rX {path}`."
        case IsADirectoryError():
            return "it is a folder, expected a file", "Move it away."
    text = summarize(error)
    if _is_empty(path):
        return f"it is empty ({text})", advice
    return text, advice


def explain(error: BaseException) -> str:
    """Returns a message for the error that ended a command, with what to do.

    Messages of functions name an argument and the option that sets it, ``data_dir
    (--data-dir)``; only the option is kept.

    Examples:
        >>> explain(OSError(36, "File name too long", "runs/aaa"))
        'runs/aaa: file name too long. Choose a shorter --name.'
        >>> explain(ValueError("pass data_dir (--data-dir)"))
        'pass --data-dir'
        >>> explain(ValueError("leave image_size out (--image-size)"))
        'leave --image-size out'
    """
    if not isinstance(error, OSError) or error.strerror is None:
        named = r"(\w+_\w+)((?: \w+)?) \(--([\w-]+)\)"
        return re.sub(named, _option, str(error))
    remedy = _REMEDIES.get(error.errno or 0, "")
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror.lower()}. {remedy}".strip()


def _option(match: re.Match[str]) -> str:
    argument, word, option = match.groups()
    same = argument.replace("_", "-") == option
    return f"--{option}{word}" if same else match[0]


def summarize(error: BaseException) -> str:
    """Returns the message of an error as one line without a final full stop.

    Examples:
        >>> summarize(KeyError("labels"))
        "KeyError: 'labels'"
        >>> summarize(EOFError())
        'EOFError'
    """
    if type(error) is Exception and error.__cause__ is not None:
        error = error.__cause__  # a bare Exception only says where
    text = " ".join(re.sub(r"\x1b\[[\d;]*m", "", str(error)).split()).rstrip(".")
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST].rstrip('.')} ..."
    name = type(error).__name__
    if not text:
        return name
    return text if isinstance(error, _SAME_NAME) else f"{name}: {text}"
