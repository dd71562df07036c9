"""``kdlab losses``: distillation losses by balancing method."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
from rich.console import Console

from kdlab.basics import display
from kdlab.basics.reading import read_json
from kdlab.data import open_dataset
from kdlab.devices import mesh
from kdlab.experiment.progress import progress_bars
from kdlab.experiment.run import train_students
from kdlab.experiment.students import Students
from kdlab.experiment.teachers import get_teacher
from kdlab.runs import logs
from kdlab.runs import record as run_record
from kdlab.runs.table import caption, spread
from kdlab.settings.config import Config, LossesConfig

BASELINE = "labels_only"


def run(config: LossesConfig, console: Console) -> None:
    """Runs what is missing of every loss, method and seed; prints and writes a table.

    Args:
        config: The settings.
        console: Where progress and the table are shown.

    Raises:
        ValueError: If a directory holds runs with other settings.
        ModuleNotFoundError: If a package is missing that is to be logged to.
    """
    logs.check_installed(tensorboard=config.tensorboard, wandb=config.wandb)
    dataset = open_dataset(
        config.dataset, data_dir=config.data_dir, image_size=config.image_size
    )
    with contextlib.ExitStack() as stack:
        if mesh.is_first():
            for single in _experiments(config):
                stack.enter_context(single.claimed(dataset.fingerprint))
        mesh.wait_for_all("the directories are there")
        stack.enter_context(run_record.attempt(config.directory, sys.argv[1:]))
        progress = stack.enter_context(progress_bars(console))
        teacher = get_teacher(config, dataset, progress)
        bar = progress.add_task("losses", total=1 + len(config.losses))
        for single in _experiments(config):
            train_students(Students(single, teacher), progress, diagnose=False)
            # The steps of one loss are of no use to the next.
            jax.clear_caches()
            if mesh.is_first():
                write(config)
            progress.advance(bar)
    if not mesh.is_first():
        return
    show(config, console)
    for path in write(config):
        display.written(console, path, "Table")


def _experiments(config: LossesConfig) -> Iterator[Config]:
    """The baseline, then one experiment a loss, each in a directory of its own."""
    yield config.single(config.name, "kd", (BASELINE,))
    for loss in config.losses:
        yield config.single(f"{config.name}/{loss}", loss, config.methods)


def results(config: LossesConfig) -> dict[str, dict[str, list[dict]]]:
    """By loss and method, the results of the seeds that are done."""
    return {
        loss: {
            method: _read(config.directory / loss / method) for method in config.methods
        }
        for loss in config.losses
    }


def _read(directory: Path) -> list[dict]:
    files = sorted(directory.glob("seed*/result.json"))
    return [read_json(file) for file in files]


def cell(found: list[dict]) -> str:
    """Accuracies of the last and of the best epoch, in percent; empty without any."""
    if not found:
        return ""
    last, best = (spread(found, f"accuracy/{n}", 100, 1) for n in ("last", "best"))
    return last if last.startswith("diverged") else f"{last} / {best}"


def rows(config: LossesConfig) -> list[tuple[str, ...]]:
    """One row a loss, one cell a method."""
    return [
        (loss, *(cell(found) for found in methods.values()))
        for loss, methods in results(config).items()
    ]


def footer(config: LossesConfig) -> str:
    """What was run, and what it is to be compared with."""
    teacher = read_json(config.directory / "teacher.json")
    return (
        f"Test accuracy in percent, last epoch / best epoch. {caption(config)} Labels "
        f"only: {cell(_read(config.directory / BASELINE))}. Teacher, last epoch: "
        f"{100 * teacher['accuracy/last']:.1f}."
    )


def show(config: LossesConfig, console: Console) -> None:
    """Prints the table."""
    display.table(console, ("loss", *config.methods), rows(config))
    display.line(console, footer(config))


def write(config: LossesConfig) -> tuple[Path, Path]:
    """Writes the table as Markdown and the numbers behind it as JSON."""
    markdown = config.directory / "table_losses.md"
    lines = [("loss", *config.methods), ("---", *["---:"] * len(config.methods))]
    lines = ["| " + " | ".join(row) + " |" for row in [*lines, *rows(config)]]
    markdown.write_text("\n".join([*lines, "", footer(config), ""]))
    numbers = config.directory / "table_losses.json"
    numbers.write_text(json.dumps(results(config), indent=2) + "\n")
    return markdown, numbers
