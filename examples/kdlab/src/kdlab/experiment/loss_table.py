"""``kdlab losses``: compares distillation losses under several balancing methods."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.console import Console

from kdlab.basics import display
from kdlab.basics.reading import read_json
from kdlab.basics.writing import write_json, write_text
from kdlab.devices import mesh
from kdlab.experiment.make import check_names
from kdlab.experiment.progress import progress_bars
from kdlab.experiment.run import prepare, train_students
from kdlab.experiment.students import Students
from kdlab.experiment.teachers import get_teacher
from kdlab.losses.table import LOSSES
from kdlab.runs import files
from kdlab.runs import record as run_record
from kdlab.runs.claim import claim_for_run
from kdlab.runs.table import describe, format_spread
from kdlab.settings.checks import check_known
from kdlab.settings.config import Config
from kdlab.settings.parts import (
    SOFT,
    Data,
    Distillation,
    Networks,
    Training,
    Untimed,
)

BASELINE = "labels_only"


@dataclasses.dataclass(frozen=True)
class AnyLoss(Distillation):
    """Options of the distillation loss, without its name."""

    loss: Annotated[str, tyro.conf.Suppress] = "kd"


@dataclasses.dataclass(frozen=True)
class LossesConfig:
    """Compare distillation losses under several methods.

    Every loss is run with every method and seed in RUNS/NAME/LOSS, and one table is
    printed and written. The other settings are those of `distill`.
    """

    name: str = "losses"
    """Everything is written to RUNS/NAME; the same command resumes it."""
    losses: tuple[str, ...] = tuple(loss for loss in LOSSES if loss not in SOFT)
    """Distillation losses to compare, in this order."""
    methods: tuple[str, ...] = ("kd", "dot", "dto_kd", "dto_kd_shared")
    """Methods to compare; `kd` uses fixed weights."""
    seeds: int = 3
    """Number of seeds (0, 1, ...); each draws its own labels, noise, initial weights
    and batches."""
    data: Data = dataclasses.field(default_factory=Data)
    networks: Networks = dataclasses.field(default_factory=Networks)
    distillation: AnyLoss = dataclasses.field(default_factory=AnyLoss)
    training: Training = dataclasses.field(
        default_factory=lambda: Training(epochs=20, learning_rate=0.01)
    )
    execution: Untimed = dataclasses.field(default_factory=Untimed)

    def __post_init__(self) -> None:
        """Refuses unknown names, listing the known ones."""
        for loss in self.losses:
            check_known("losses", loss, LOSSES)
        self.single(self.name, "kd", self.methods)

    def single(self, name: str, loss: str, methods: tuple[str, ...]) -> Config:
        """Returns the experiment of one loss under a given name."""
        config = Config(
            name=name,
            methods=methods,
            seeds=self.seeds,
            data=self.data,
            networks=self.networks,
            distillation=dataclasses.replace(self.distillation, loss=loss),
            training=self.training,
            execution=self.execution,
        )
        return check_names(config)

    @property
    def base(self) -> Config:
        """Settings that all experiments of the table share."""
        return self.single(self.name, "kd", self.methods)


def run(config: LossesConfig, console: Console) -> None:
    """Runs all missing trainings, then prints and writes the table.

    Args:
        config: The settings.
        console: Terminal for progress and the table.

    Raises:
        ValueError: If a directory holds runs with other settings.
        ModuleNotFoundError: If the package of a requested logger is missing.
    """
    base = config.base
    dataset = prepare(config.data, config.execution)
    with contextlib.ExitStack() as stack:
        if mesh.is_first():
            for single in _experiments(config):
                stack.enter_context(claim_for_run(single, dataset.fingerprint))
        mesh.wait_for_all("the directories are there")
        stack.enter_context(run_record.record_start(base.directory, sys.argv[1:]))
        progress = stack.enter_context(progress_bars(console))
        teacher = get_teacher(base, dataset, progress)
        bar = progress.add_task("losses", total=1 + len(config.losses))
        for single in _experiments(config):
            train_students(Students(single, teacher), progress, diagnose=False)
            # The next loss cannot use the compiled steps of this one.
            jax.clear_caches()
            if mesh.is_first():
                write(config)
            progress.advance(bar)
    if not mesh.is_first():
        return
    show(config, console)
    for path in write(config):
        display.print_path(console, path, "Table")


def _experiments(config: LossesConfig) -> Iterator[Config]:
    """Yields the baseline, then one experiment per loss, each in its own directory."""
    yield config.single(config.name, "kd", (BASELINE,))
    for loss in config.losses:
        yield config.single(f"{config.name}/{loss}", loss, config.methods)


def read_results(config: LossesConfig) -> dict[str, dict[str, list[dict]]]:
    """Returns the results of all finished seeds by loss and method."""
    return {
        loss: {
            method: _read(config.base.directory / loss / method)
            for method in config.methods
        }
        for loss in config.losses
    }


def _read(directory: Path) -> list[dict]:
    return files.read_results(directory)


def format_cell(found: list[dict]) -> str:
    """Formats accuracies of the last and best epoch in percent; empty if none."""
    if not found:
        return ""
    last, best = (
        format_spread(found, f"accuracy/{n}", 100, 1) for n in ("last", "best")
    )
    return last if last.startswith("diverged") else f"{last} / {best}"


def make_rows(config: LossesConfig) -> list[tuple[str, ...]]:
    """Returns one row per loss with one cell per method."""
    return [
        (loss, *(format_cell(found) for found in methods.values()))
        for loss, methods in read_results(config).items()
    ]


def make_footer(config: LossesConfig) -> str:
    """Describes the runs, the baseline and the teacher."""
    base = config.base
    teacher = read_json(base.directory / files.TEACHER)
    return (
        f"Test accuracy in percent, last epoch / best epoch. {describe(base)} Labels "
        f"only: {format_cell(_read(base.directory / BASELINE))}. Teacher, last epoch: "
        f"{100 * teacher['accuracy/last']:.1f}."
    )


def show(config: LossesConfig, console: Console) -> None:
    """Prints the table."""
    display.print_table(console, ("loss", *config.methods), make_rows(config))
    display.print_line(console, make_footer(config))


def write(config: LossesConfig) -> tuple[Path, Path]:
    """Writes the table as Markdown and the numbers behind it as JSON."""
    markdown = config.base.directory / "table_losses.md"
    lines = [("loss", *config.methods), ("---", *["---:"] * len(config.methods))]
    lines = ["| " + " | ".join(row) + " |" for row in [*lines, *make_rows(config)]]
    write_text(markdown, "\n".join([*lines, "", make_footer(config), ""]))
    numbers = config.base.directory / "table_losses.json"
    write_json(numbers, read_results(config))
    return markdown, numbers
