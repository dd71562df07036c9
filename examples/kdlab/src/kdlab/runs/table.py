"""Makes the table of an experiment from the files of its runs."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from kdlab.basics import display
from kdlab.basics.writing import write_text
from kdlab.runs import files
from kdlab.settings.config import Config


class Column(NamedTuple):
    """A column of a table of runs.

    Attributes:
        head: Its name.
        key: Key of the results.
        scale: Factor of the values.
        digits: Number of decimal places.
    """

    head: str
    key: str
    scale: float = 1
    digits: int = 3


def make_columns(results: Iterable[files.Result] = ()) -> list[Column]:
    """Returns the columns of a table, with one for each loss of the results."""
    names = "task", *(files.list_losses(results) or ["distill"])
    return [
        Column("last epoch (%)", "accuracy/last", 100, 2),
        Column("best epoch (%)", "accuracy/best", 100, 2),
        *(Column(f"{name} loss", f"train/loss/{name}") for name in names),
        Column("conflict (%)", "conflict_rate", 100, 0),
    ]


def make_table(config: Config) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Returns head and rows, one per method: mean and deviation over finished seeds."""
    times = files.read_step_times(config.directory)
    found = {
        name: files.read_results(config.directory / name) for name in config.methods
    }
    columns = make_columns(chain.from_iterable(found.values()))
    rows: list[tuple[str, ...]] = []
    for method, results in found.items():
        if not results:
            continue
        done = [result for result in results if files.DIVERGED not in result]
        cells = [
            format_spread(results if "accuracy" in column.key else done, *column[1:])
            for column in columns
        ]
        relative = times.get(method, {}).get("relative")
        rows.append((method, *cells, "" if relative is None else f"{relative:.2f}"))
    return ("method", *(column.head for column in columns), "step time"), rows


def format_spread(results: list[dict], key: str, scale: float, digits: int) -> str:
    """Formats mean ± sample standard deviation, or the number of diverged runs."""
    lost = sum(files.DIVERGED in result for result in results)
    if lost:
        return f"diverged ({lost} of {len(results)})"
    values = scale * np.array([result[key] for result in results if key in result])
    if not len(values):
        return ""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def describe(config: Config) -> str:
    """Describes an experiment in one sentence."""
    labels = "all" if config.data.labels is None else config.data.labels
    teacher = (
        "" if config.networks.teacher is None else f"{config.networks.teacher} to "
    )
    over = f"mean ± standard deviation over {config.seeds} seeds"
    return (
        f"{config.data.dataset}: {teacher}{config.networks.student}, {labels} labels, "
        f"{config.data.noise:.0%} of them replaced at random, "
        f"{config.training.epochs} epochs; {over if config.seeds > 1 else 'one seed'}."
    )


NOTES = (
    "Losses: whole training set, after the last epoch. Conflict: share of epochs whose "
    "last batch has gradients at an obtuse angle. Step time: relative to kd, "
    "interleaved."
)


def show(config: Config, console: Console) -> None:
    """Prints the table."""
    display.print_table(console, *make_table(config))
    display.print_line(console, f"{describe(config)} {NOTES}")


def write(config: Config) -> Path:
    """Writes the table as Markdown into the directory of the experiment."""
    lines = display.format_markdown(*make_table(config), left=(0,))
    path = config.directory / files.TABLE
    write_text(path, "\n".join([*lines, "", f"{describe(config)} {NOTES}", ""]))
    return path
