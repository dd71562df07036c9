"""``kdlab dot-schedule``: DOT at the schedule of its paper, on Fashion-MNIST."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from kdlab.basics import display
from kdlab.basics.writing import write_text
from kdlab.experiment.make import check_names
from kdlab.experiment.progress import progress_bars
from kdlab.minima.measure import Grid
from kdlab.papers.claims import trials
from kdlab.papers.claims.evidence import judge
from kdlab.papers.claims.trials import Arm, Trial
from kdlab.papers.recipes import find
from kdlab.runs import files
from kdlab.runs.table import Column, format_spread
from kdlab.settings.config import Config, configure
from kdlab.settings.parts import Untimed

RECIPE = "cifar100/dot/resnet32x4-resnet8x4"
RATES = (0.25, 1.0, 4.0)  # times the rate of the recipe
SETTING = "clean"

COLUMNS = (
    Column("accuracy", "accuracy/last", 100, 2),
    Column("task loss", "train/loss/task"),
    Column("distill loss", "train/loss/distill"),
)
HEAD = ("arm", "rate", *(column.head for column in COLUMNS))


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """Test DOT at the schedule of its paper, with the learning rate searched.

    A ResNet-8 with BatchNorm learns from a CNN on Fashion-MNIST at 14 by 14 pixels:
    2,400 steps, with batch size, weight decay and schedule of the paper (the rate falls
    after 15, 18 and 21 of 24 epochs, there after 150, 180 and 210 of 240). KD, DOT and
    the control, KD with the weights that DOT's momenta amount to, are trained with
    three rates each. Unlike in the paper, images are not augmented, so that the teacher
    runs once. The same command resumes it.
    """

    name: str = "dot-schedule"
    """Everything is written to RUNS/NAME-clean and RUNS/NAME."""
    seeds: int = 3
    """Number of seeds (0, 1, ...)."""
    labels: int = 6400
    """Number of labelled images that the student sees, balanced over classes."""
    epochs: int = 24
    """Epochs of training; the rate falls after the same fractions of them."""
    data_dir: Path | None = None
    """Folder of Fashion-MNIST."""
    execution: Untimed = dataclasses.field(default_factory=Untimed)

    def base(self) -> Config:
        """Returns the settings that all arms share: the recipe's, on smaller images."""
        recipe = find(RECIPE)[0].config
        training = recipe.training
        decays = (
            round(epoch * self.epochs / training.epochs)
            for epoch in training.decay_epochs
        )
        config = configure(
            recipe,
            name=self.name,
            methods=("kd",),
            seeds=self.seeds,
            dataset="fashion_mnist",
            data_dir=self.data_dir,
            image_size=14,
            labels=self.labels,
            augment="none",
            teacher="cnn_teacher",
            teacher_epochs=2,
            teacher_weights=None,
            student="resnet8",
            epochs=self.epochs,
            decay_epochs=tuple(decays),
        )
        return check_names(dataclasses.replace(config, execution=self.execution))


def make_arms() -> dict[str, Arm]:
    """Returns the arms, each with every rate."""
    delta = trials.DELTAS[-1]
    kinds = {"kd": {}, "dot": {"delta": delta}, "gain_matched": {"matched": delta}}
    return {
        f"{name}-{rate:g}": Arm(numbers=trials.PLAIN | numbers, rate=rate)
        for name, numbers in kinds.items()
        for rate in RATES
    }


class Row(NamedTuple):
    """Results of an arm at one rate, one for each seed."""

    name: str
    rate: float
    results: list[dict[str, float]]

    @property
    def accuracy(self) -> np.ndarray:
        """Accuracy of the last epoch in percent; NaN for seeds that diverged."""
        return np.array(
            [
                np.nan if files.DIVERGED in result else 100 * result["accuracy/last"]
                for result in self.results
            ]
        )

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of the table."""
        spreads = (format_spread(self.results, *column[1:]) for column in COLUMNS)
        return self.name, f"{self.rate:g}", *spreads


def run(config: ScheduleConfig, console: Console) -> list[Row]:
    """Trains missing students, then prints and writes the table.

    Args:
        config: The settings.
        console: Terminal for progress and the table.
    """
    setting = trials.Setting(0.0, 1.0, make_arms(), ())
    base = config.base()
    with progress_bars(console) as progress:
        trial = trials.run(base, {SETTING: setting}, progress, Grid())[SETTING]
    rows = make_rows(trial, base.training.learning_rate)
    folder = config.execution.runs / config.name
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "schedule.md", to_markdown(rows))
    display.print_table(console, HEAD, [row.cells for row in rows])
    for line in compare(rows):
        display.print_line(console, line)
    display.print_path(console, folder / "schedule.md")
    return rows


def make_rows(trial: Trial, rate: float) -> list[Row]:
    """Returns the results of all arms, in order."""
    return [
        Row(arm.rpartition("-")[0], rate * found.rate, trial.results[arm])
        for arm, found in make_arms().items()
    ]


def compare(rows: list[Row]) -> list[str]:
    """Compares the arms, each at its best rate, with the fixed weights.

    A seed that diverged counts as an accuracy of 0.
    """
    best: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: np.mean(np.nan_to_num(row.accuracy))):
        best[row.name] = row
    kd = best.pop("kd")
    return [
        judge(f"{name} - kd", row.accuracy - kd.accuracy, unit=" points").text
        for name, row in best.items()
    ]


def to_markdown(rows: list[Row]) -> str:
    """Formats the table, and the comparison at the best rates, as Markdown."""
    cells = [row.cells for row in rows]
    lines = display.format_markdown(HEAD, cells, left=(0,))
    return "\n".join([*lines, "", *(f"* {line}" for line in compare(rows)), ""])
