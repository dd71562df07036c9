"""``kdlab compare RUNS...``: compares finished runs in one table.

A row is a group: a folder of runs that differ only in their seed.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from rich.console import Console

from kdlab.basics import display
from kdlab.basics.writing import write_json, write_text
from kdlab.runs import files
from kdlab.runs.table import Column, format_spread, make_columns
from kdlab.settings.parts import expand_home

NOTE = (
    "Mean ± sample standard deviation over finished seeds. Accuracies: test set; "
    "the best epoch was chosen on the test set. Losses: whole training set, after the "
    "last epoch. Conflict: share of epochs whose last batch has gradients at an obtuse "
    "angle. s/epoch: median over epochs except the first; not measured side by side."
)


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Compare finished runs: accuracies, losses, times, and the settings that differ.

    The table is printed and written as comparison.md and comparison.json.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, or folders that contain some at any depth."""
    out: Path | None = None
    """Folder to write to; by default the deepest one that contains all RUNS."""

    def __post_init__(self) -> None:
        """Expands ``~``."""
        expand_home(self)


class Group(NamedTuple):
    """Runs that differ only in their seed.

    Attributes:
        name: Path of their folder, relative to the common folder.
        results: Results of the finished seeds, ordered by name.
        experiment: Folder of the ``config.json`` of their experiment, if it has one.
        settings: Contents of that file.
    """

    name: str
    results: list[dict[str, float]]
    experiment: str
    settings: dict[str, object]


class Comparison(NamedTuple):
    """Groups of runs, and the skipped places with their reasons."""

    groups: list[Group]
    skipped: list[tuple[str, str]]


def run(config: CompareConfig, console: Console) -> None:
    """Prints and writes the comparison.

    Args:
        config: The settings.
        console: Terminal for the tables.

    Raises:
        ValueError: If no run is finished.
    """
    found = collect(config.runs)
    for place, reason in found.skipped:
        what = f"{place}: {reason}"
        display.print_line(console, what, label="skipped", style="yellow")
    if not found.groups:
        raise ValueError(
            f"no finished run in {', '.join(map(str, config.runs)) or 'RUNS'}: give "
            f"directories with {files.LAYOUT} below them."
        )
    for title, head, rows in make_tables(found):
        display.print_table(console, head, rows, title=title)
    display.print_line(console, NOTE)
    for path in write(found, config.out or _common(config.runs)):
        display.print_path(console, path)


def collect(runs: Sequence[Path]) -> Comparison:
    """Reads all runs below some directories, skipping what cannot be read.

    Args:
        runs: Directories.

    Returns:
        Groups in the order of `runs`, and what was skipped.
    """
    groups: list[Group] = []
    skipped: list[tuple[str, str]] = []
    seen: set[Path] = set()
    for place in runs:
        seeds = list(files.find_seed_folders(place))
        if not seeds:
            reason = "contains no run" if place.exists() else "does not exist"
            skipped.append((str(place), reason))
        by_folder: dict[Path, list[dict[str, float]]] = {}
        for seed in seeds:
            if seed.resolve() in seen:
                continue
            seen.add(seed.resolve())
            try:
                by_folder.setdefault(seed.parent, []).append(_read_run(seed))
            except (OSError, ValueError) as error:
                skipped.append((str(seed), str(error)))
        for folder, results in by_folder.items():
            experiment, settings = files.find_experiment(folder), {}
            try:
                settings = files.read_settings(experiment)
            except (OSError, ValueError) as error:
                skipped.append((f"settings of {folder}", str(error)))
            name, where = (_name(path, _common(runs)) for path in (folder, experiment))
            groups.append(Group(name, results, where, settings))
    return Comparison(groups, skipped)


def list_columns(results: Iterable[files.Result]) -> list[Column]:
    """Returns the columns of a comparison of runs with these results."""
    return [*make_columns(results), Column("s/epoch", "seconds/epoch", 1, 1)]


def make_tables(found: Comparison) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yields title, head and rows of the results and, if any, of the differences."""
    columns = list_columns(one for group in found.groups for one in group.results)
    head = ["run", "seeds", *(column.head for column in columns)]
    rows = []
    for group in found.groups:
        cells = (format_spread(group.results, *column[1:]) for column in columns)
        rows.append([group.name, str(len(group.results)), *cells])
    yield "Results", head, rows
    experiments = {group.experiment: group.settings for group in found.groups}
    fields = find_differences(list(experiments.values()))
    fields = [field for field in fields if field != "name"]  # already in the head
    if fields:
        rows = [
            [
                field,
                *(str(settings.get(field, "")) for settings in experiments.values()),
            ]
            for field in fields
        ]
        yield "Settings that differ", ["setting", *experiments], rows


def find_differences(settings: Sequence[dict[str, object]]) -> list[str]:
    """Returns the names of the settings that are not the same everywhere.

    Examples:
        >>> find_differences([{"epochs": 1, "noise": 0}, {"epochs": 2, "noise": 0}])
        ['epochs']
    """
    fields = dict.fromkeys(field for one in settings for field in one)
    return [
        field
        for field in fields
        if any(one.get(field) != settings[0].get(field) for one in settings)
    ]


def write(found: Comparison, folder: Path) -> tuple[Path, Path]:
    """Writes the tables as Markdown and the numbers behind them as JSON."""
    lines: list[str] = []
    for title, head, rows in make_tables(found):
        lines += [f"**{title}**", "", _line(head)]
        lines += ["|---" + "|---:" * (len(head) - 1) + "|"]
        lines += [*map(_line, rows), ""]
    lines += [NOTE, *(f"\nSkipped {place}: {why}" for place, why in found.skipped)]
    folder.mkdir(parents=True, exist_ok=True)
    markdown, numbers = folder / "comparison.md", folder / "comparison.json"
    write_text(markdown, "\n".join([*lines, ""]))
    content = {
        "groups": [group._asdict() for group in found.groups],
        "skipped": [{"run": place, "reason": why} for place, why in found.skipped],
    }
    write_json(numbers, content)
    return markdown, numbers


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _common(runs: Sequence[Path]) -> Path:
    """Returns the deepest folder that contains all existing runs."""
    there = [path.absolute() for path in runs if path.exists()]
    return Path(os.path.commonpath(there)) if there else Path.cwd()


def _name(path: Path, common: Path) -> str:
    relative = os.path.relpath(path, common)
    return path.absolute().name if set(relative) <= {".", os.sep} else relative


def _read_run(seed: Path) -> files.Result:
    """Reads the result of a run, and adds its time per epoch.

    Raises:
        ValueError: If it is not finished or cannot be read, with the reason.
    """
    if not files.has_result(seed):
        done = files.count_epochs(seed)
        raise ValueError(f"not finished ({done} epochs are done); start it again")
    result, records = files.read_result(seed), files.read_metrics(seed)
    if "accuracy/last" not in result and files.DIVERGED not in result:
        raise ValueError(f"{files.RESULT} has no accuracy/last")
    if not all(isinstance(value, int | float) for value in result.values()):
        raise ValueError(f"{files.RESULT} holds values that are not numbers")
    seconds = [record["seconds"] for record in records if "seconds" in record]
    if seconds:
        # The first epoch includes compilation.
        result["seconds/epoch"] = float(np.median(seconds[1:] or seconds))
    return result
