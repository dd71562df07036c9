"""Makes the table of an experiment from the files of its runs."""

from pathlib import Path

import numpy as np
from rich.console import Console

from kdlab.basics import display
from kdlab.basics.writing import write_text
from kdlab.runs import files
from kdlab.settings.config import Config

COLUMNS = (
    "method",
    "last epoch (%)",
    "best epoch (%)",
    "task loss",
    "distill loss",
    "conflict (%)",
    "step time",
)


def make_rows(config: Config) -> list[tuple[str, ...]]:
    """Returns one row per method: mean and standard deviation over finished seeds."""
    times = files.read_step_times(config.directory)
    out: list[tuple[str, ...]] = []
    for method in config.methods:
        results = files.read_results(config.directory / method)
        if not results:
            continue
        done = [result for result in results if files.DIVERGED not in result]
        relative = times.get(method, {}).get("relative")
        out.append(
            (
                method,
                format_spread(results, "accuracy/last", 100, 2),
                format_spread(results, "accuracy/best", 100, 2),
                format_spread(done, "train/loss/task", 1, 3),
                format_spread(done, "train/loss/distill", 1, 3),
                format_spread(done, "conflict_rate", 100, 0),
                "" if relative is None else f"{relative:.2f}",
            )
        )
    return out


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
    display.print_table(console, COLUMNS, make_rows(config))
    display.print_line(console, f"{describe(config)} {NOTES}")


def write(config: Config) -> Path:
    """Writes the table as Markdown into the directory of the experiment."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" + "|---:" * (len(COLUMNS) - 1)]
    lines[1] += "|"
    lines += ["| " + " | ".join(row) + " |" for row in make_rows(config)]
    path = config.directory / files.TABLE
    write_text(path, "\n".join([*lines, "", f"{describe(config)} {NOTES}", ""]))
    return path
