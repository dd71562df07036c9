"""The files of a run directory: their names, reading and writing.

::

    EXPERIMENT/config.json, inputs.json, record.json, teacher.json, step_time.json
    EXPERIMENT/METHOD/seedN/metrics.jsonl, result.json, measures.npz, checkpoints/
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kdlab.basics.reading import read_json, reading
from kdlab.basics.writing import write_json, write_text

CONFIG = "config.json"
INPUTS = "inputs.json"
RECORD = "record.json"
TEACHER = "teacher.json"
STEP_TIME = "step_time.json"
TABLE = "table.md"
FIGURES = "figures"
WEIGHTS = "weights"

METRICS = "metrics.jsonl"
RESULT = "result.json"
MEASURES = "measures.npz"
CHECKPOINTS = "checkpoints"

LAYOUT = f"METHOD/seedN/{RESULT}"
"""Path of a result below an experiment, for messages."""

DIVERGED = "diverged"
"""Key of a result: the epoch in which a loss was not finite."""

Result = dict[str, float]


def seed_folder(experiment: Path, method: str, seed: int) -> Path:
    """Returns the folder of one run of an experiment."""
    return experiment / method / f"seed{seed}"


def list_seed_folders(folder: Path) -> list[Path]:
    """Returns the runs in the folder of a method, ordered by name."""
    return sorted(path for path in folder.glob("seed*") if path.is_dir())


def find_seed_folders(place: Path) -> Iterator[Path]:
    """Yields all runs at or below a path, ordered by path."""
    yield from (p for p in (place, *sorted(place.rglob("seed*"))) if is_seed(p))


def is_seed(path: Path) -> bool:
    """Returns whether a path is the folder of a run."""
    return path.name.startswith("seed") and path.is_dir()


def find_experiment(folder: Path) -> Path:
    """Finds the experiment that a folder belongs to: the nearest one with settings.

    Args:
        folder: Folder of a run, a method or an experiment.

    Returns:
        The folder with the settings, or the given one if there is none.
    """
    above = (folder, *folder.absolute().parents[:3])
    return next((path for path in above if (path / CONFIG).exists()), folder)


def has_result(seed: Path) -> bool:
    """Returns whether a run is finished."""
    return (seed / RESULT).exists()


def read_result(seed: Path) -> Result:
    """Reads the result of a finished run.

    Raises:
        ValueError: If it cannot be read.
    """
    return read_json(seed / RESULT)


def read_results(folder: Path) -> list[Result]:
    """Reads the results of all finished runs in the folder of a method."""
    return [read_result(seed) for seed in list_seed_folders(folder) if has_result(seed)]


def read_metrics(seed: Path, epochs: int | None = None) -> list[dict[str, float]]:
    """Reads the metrics of a run, one record per epoch; empty if there is no file.

    Args:
        seed: The folder of the run.
        epochs: Number of epochs to read; None: all.

    Raises:
        ValueError: If they cannot be read.
    """
    path = seed / METRICS
    if not path.exists():
        return []
    with reading(path, f"Move {seed} away and start the command again."):
        lines = path.read_text().splitlines()[:epochs]
        records = [json.loads(line) for line in lines]
        if not all(isinstance(record, dict) for record in records):
            raise ValueError("expected an object in each line")
        return records


def count_epochs(seed: Path) -> int:
    """Counts the epochs whose metrics are written, without an incomplete last line."""
    path = seed / METRICS
    return path.read_bytes().count(b"\n") if path.exists() else 0


def read_settings(experiment: Path) -> dict[str, Any]:
    """Reads the settings of an experiment; empty if there is no file.

    Raises:
        ValueError: If they cannot be read.
    """
    path = experiment / CONFIG
    return read_json(path) if path.exists() else {}


def read_step_times(experiment: Path) -> dict[str, dict[str, float]]:
    """Reads milliseconds and relative time of a step by method; empty if not timed.

    Raises:
        ValueError: If they cannot be read.
    """
    path = experiment / STEP_TIME
    return read_json(path) if path.exists() else {}


def read_leniently(path: Path, default: Any) -> Any:
    """Reads a JSON file, falling back to a default.

    Args:
        path: The file.
        default: Returned if the file is missing, damaged, or of another type than this
            default.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return default
    return content if isinstance(content, type(default)) else default


def write_result(seed: Path, result: Result) -> None:
    """Writes the result of a run, which marks it as finished."""
    write_json(seed / RESULT, result)


def append_metrics(seed: Path, record: dict[str, float]) -> None:
    """Appends the metrics of an epoch to those of a run."""
    with (seed / METRICS).open("a") as file:
        file.write(json.dumps(record) + "\n")


def cut_metrics(seed: Path, epochs: int) -> list[dict[str, float]]:
    """Drops the metrics after a checkpoint, whose epochs will be repeated.

    Args:
        seed: The folder of the run.
        epochs: Number of epochs before the checkpoint.

    Returns:
        The remaining records.
    """
    records = read_metrics(seed, epochs)
    write_text(seed / METRICS, "".join(json.dumps(one) + "\n" for one in records))
    return records


def write_step_times(experiment: Path, times: dict[str, dict[str, float]]) -> None:
    """Writes milliseconds and relative time of a step by method."""
    write_json(experiment / STEP_TIME, times)


def write_teacher(experiment: Path, result: Result) -> None:
    """Writes the accuracy of the teacher of an experiment."""
    write_json(experiment / TEACHER, result)


def list_losses(recorded: Iterable[Iterable[str]]) -> list[str]:
    """Returns the names of the distillation losses that any of some runs recorded.

    Args:
        recorded: The keys of the results or metrics of each run.

    Examples:
        >>> list_losses([["train/loss/task", "train/loss/kl", "train/loss/distill"]])
        ['distill', 'kl']
    """
    start = "train/loss/"
    found = {key for keys in recorded for key in keys if key.startswith(start)}
    return sorted(key.removeprefix(start) for key in found - {f"{start}task"})
