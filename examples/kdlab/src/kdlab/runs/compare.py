"""``kdlab compare RUNS...``: one table over finished runs.

A group is a folder of seeds, the runs that differ in nothing else: one row.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from rich.console import Console

from kdlab.basics import display
from kdlab.basics.writing import write_json, write_text
from kdlab.runs import files
from kdlab.runs.table import spread
from kdlab.settings.parts import expand_home

COLUMNS = (
    ("last epoch (%)", "accuracy/last", 100, 2),
    ("best epoch (%)", "accuracy/best", 100, 2),
    ("task loss", "train/loss/task", 1, 3),
    ("distill loss", "train/loss/distill", 1, 3),
    ("conflict (%)", "conflict_rate", 100, 0),
    ("s/epoch", "seconds/epoch", 1, 1),
)
NOTE = (
    "Mean ± sample standard deviation over the seeds that ended. Accuracies: test set; "
    "the best epoch was chosen on the test set. Losses: whole training set, after the "
    "last epoch. Conflict: share of epochs whose last batch has gradients at an obtuse "
    "angle. s/epoch: median over epochs but the first, not measured side by side."
)


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Compare finished runs: accuracies, losses, times, and the settings that differ.

    The table is printed and written as comparison.md and comparison.json.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, or folders that hold some at any depth."""
    out: Path | None = None
    """Folder to write to; by default the one that holds all RUNS."""

    def __post_init__(self) -> None:
        """Finds the home of the user."""
        expand_home(self)


class Group(NamedTuple):
    """Runs that differ in their seed.

    Attributes:
        name: Where they are, from the common folder.
        results: Results of each seed that ended, in the order of the seeds' names.
        experiment: Where the ``config.json`` of their experiment is, if it has one.
        settings: What that file holds.
    """

    name: str
    results: list[dict[str, float]]
    experiment: str
    settings: dict[str, object]


class Comparison(NamedTuple):
    """What was found, and what was left out: places and reasons."""

    groups: list[Group]
    skipped: list[tuple[str, str]]


def run(config: CompareConfig, console: Console) -> None:
    """Prints and writes the comparison.

    Args:
        config: The settings.
        console: Where it is shown.

    Raises:
        ValueError: If not one run has ended.
    """
    found = collect(config.runs)
    for place, reason in found.skipped:
        what = f"{place}: {reason}"
        display.line(console, what, label="skipped", style="yellow")
    if not found.groups:
        raise ValueError(
            f"no finished run in {', '.join(map(str, config.runs)) or 'RUNS'}: give "
            f"directories with {files.LAYOUT} below them."
        )
    for title, head, rows in tables(found):
        display.table(console, head, rows, title=title)
    display.line(console, NOTE)
    for path in write(found, config.out or _common(config.runs)):
        display.written(console, path)


def collect(runs: Sequence[Path]) -> Comparison:
    """Reads all runs below some directories; no file of theirs can make it fail.

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
            skipped.append((str(place), "no run in it" if place.exists() else "absent"))
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


def tables(found: Comparison) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, head and rows of the results and, if there are any, of the differences."""
    head = ["run", "seeds", *(column[0] for column in COLUMNS)]
    rows = []
    for group in found.groups:
        cells = (spread(group.results, *column[1:]) for column in COLUMNS)
        rows.append([group.name, str(len(group.results)), *cells])
    yield "Results", head, rows
    experiments = {group.experiment: group.settings for group in found.groups}
    fields = differing(list(experiments.values()))
    fields = [field for field in fields if field != "name"]  # it is in the head
    if fields:
        rows = [
            [
                field,
                *(str(settings.get(field, "")) for settings in experiments.values()),
            ]
            for field in fields
        ]
        yield "Settings that differ", ["setting", *experiments], rows


def differing(settings: Sequence[dict[str, object]]) -> list[str]:
    """Names of the settings that are not the same everywhere.

    Examples:
        >>> differing([{"epochs": 1, "noise": 0}, {"epochs": 2, "noise": 0}])
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
    for title, head, rows in tables(found):
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
    """The deepest folder that holds all runs, as far as they are there."""
    there = [path.absolute() for path in runs if path.exists()]
    return Path(os.path.commonpath(there)) if there else Path.cwd()


def _name(path: Path, common: Path) -> str:
    relative = os.path.relpath(path, common)
    return path.absolute().name if set(relative) <= {".", os.sep} else relative


def _read_run(seed: Path) -> files.Result:
    """Result of a run with its time an epoch.

    Raises:
        ValueError: With the reason if it has not ended, or cannot be read.
    """
    if not files.has_result(seed):
        done = files.count_epochs(seed)
        raise ValueError(f"not finished ({done} epochs are done); start it again")
    result, records = files.read_result(seed), files.read_metrics(seed)
    if "accuracy/last" not in result and files.DIVERGED not in result:
        raise ValueError(f"{files.RESULT} has no accuracy/last")
    if not all(isinstance(value, int | float) for value in result.values()):
        raise ValueError(f"{files.RESULT} holds values that are no numbers")
    seconds = [record["seconds"] for record in records if "seconds" in record]
    if seconds:
        # The first epoch compiles.
        result["seconds/epoch"] = float(np.median(seconds[1:] or seconds))
    return result
