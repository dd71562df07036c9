"""Imports user functions given as ``MODULE:FUNCTION`` on the command line."""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdlab.basics.hint import did_you_mean
from kdlab.basics.reading import UserError

_PREFIXES = ("folder:", "stream:", "tfds:")


def is_reference(name: str) -> bool:
    """Returns whether a name has the form ``MODULE:FUNCTION``.

    Examples:
        >>> [is_reference(x) for x in ("mypkg.nets:make", "resnet20", "folder:images")]
        [True, False, False]
    """
    own = re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name)
    return own is not None and not name.startswith(_PREFIXES)


def import_function(name: str) -> Callable[..., Any]:
    """Imports a function; modules in the current folder are found as well.

    Args:
        name: ``MODULE:FUNCTION``.

    Raises:
        ValueError: If there is no such module, or no such function in it.

    Examples:
        >>> import_function("math:gcd")(12, 18)
        6
    """
    module, attribute = name.split(":")
    _see_current_folder()
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module exists, but a package that it needs does not
        raise UserError(
            f"{name}: there is no module {error.name!r}; expected an installed "
            f"package, or {error.name.split('.')[0]}.py or a folder of that name in "
            f"{Path.cwd()}."
        ) from error
    function = getattr(found, attribute, None)
    if not callable(function):
        public = [key for key, value in vars(found).items() if callable(value)]
        raise UserError(
            f"{name}: {found.__file__} has no function {attribute!r}; "
            f"{did_you_mean(attribute, public)}Expected MODULE:FUNCTION."
        )
    return function


def find_source(name: str) -> Path | None:
    """Returns the file that a function is imported from, or None."""
    _see_current_folder()
    spec = importlib.util.find_spec(name.split(":")[0])
    return Path(spec.origin) if spec and spec.origin else None


def _see_current_folder() -> None:
    # `python -m` does so by itself, a console command does not.
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.append(str(Path.cwd()))
