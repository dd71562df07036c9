"""Reads recipes from JSON files of settings of ``kdlab distill``."""

import json
from pathlib import Path
from typing import Any

from kdlab.basics.hint import did_you_mean
from kdlab.basics.reading import reading
from kdlab.experiment.make import make_config
from kdlab.papers.recipes._recipe import Recipe
from kdlab.settings.config import NAMES


def read(path: Path) -> Recipe:
    """Reads a recipe that ``kdlab study`` or a user wrote.

    Args:
        path: File with an object of settings by name; a relative ``teacher_weights`` is
            relative to the folder of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not hold such an object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no recipe file {path}.")
    with reading(path, "Expected an object with names and values of settings."):
        try:
            record = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"it is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} must hold one object, got {type(record).__name__}.")
    names = NAMES
    for name in record:
        if name not in names:
            hint = did_you_mean(name, names)
            raise ValueError(
                f"{path}: there is no setting {name!r}; {hint}"
                "`kdlab distill --help` lists all settings."
            )
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in record.items()
    }
    for name in ("runs", "data_dir", "teacher_weights"):
        if isinstance(values.get(name), str):
            values[name] = Path(values[name]).expanduser()
    if isinstance(values.get("teacher_weights"), Path):
        values["teacher_weights"] = path.parent / values["teacher_weights"]
    try:
        config = make_config(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Recipe(config, None, f"from {path}")
