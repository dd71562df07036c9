"""``kdlab demo``: one unknown weight, four situations, every way to choose it."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from kdlab.basics import display
from kdlab.basics.writing import write_text
from kdlab.regret.analysis import Table
from kdlab.regret.arms import name_fixed
from kdlab.regret.runner import train_missing
from kdlab.regret.situation import SITUATIONS
from kdlab.regret.store import Store
from kdlab.settings.parts import expand_home

CROSS = (
    *("good teacher", "good teacher, 40% noise"),
    *("wrong teacher", "wrong teacher, 40% noise"),
)
"""Right and wrong teachers by right and wrong labels: all four, so none was chosen."""
WEIGHTS = (0.1, 0.5, 0.9)
ARMS = (
    *(name_fixed(weight) for weight in WEIGHTS),
    *("dto_kd", "dto_kd_shared", "dto_kd_amortized", "dynamic_lambda from 0.9"),
    *("dot", "min_norm", "reference_cosine"),
    *("hypergradient, every 4th step", "weight_search"),
)


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """Distil students on real digits without knowing the right weight.

    Teachers are good or trained on wrong labels, and so are the labels of the students:
    four situations. Each method trains a student once per situation and seed. The table
    and the picture show what it costs in the worst of them. The same command resumes.
    """

    seeds: int = 3
    """Number of seeds."""
    runs: Path = Path("runs")
    """Parent folder; everything is written to RUNS/demo."""

    def __post_init__(self):
        if self.seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {self.seeds}")
        expand_home(self)


class Row(NamedTuple):
    """A method in all situations.

    Attributes:
        method: Name.
        accuracies: Mean accuracy by situation, in percent.
        spreads: Standard deviation over the seeds by situation.
        lost: Points lost against the best fixed weight, by situation.
    """

    method: str
    accuracies: np.ndarray
    spreads: np.ndarray
    lost: np.ndarray


HEAD = ("method", *CROSS, "worst loss")


def run(config: DemoConfig, console: Console) -> None:
    """Trains what is missing; prints the table and writes it beside the picture."""
    folder = config.runs / "demo"
    store = Store(folder / "results.jsonl")
    situations = [SITUATIONS[name] for name in CROSS]
    train_missing(store, situations, ARMS, range(config.seeds), None, console)
    rows = make_rows(Table(store.read(), ARMS))
    cells = [_cells(row) for row in rows]
    display.print_table(console, HEAD, cells)
    console.print(
        "Accuracy on the test set (%), mean ± standard deviation over seeds. Worst "
        "loss: points lost against the best of the three fixed weights, in the worst "
        "situation."
    )
    table, picture = folder / "demo.md", folder / "demo.png"
    write_text(table, "\n".join(display.format_markdown(HEAD, cells, left=(0,))) + "\n")
    draw(rows, picture)
    display.print_path(console, table)
    display.print_path(console, picture, "Figure")


def make_rows(table: Table) -> list[Row]:
    """Makes the rows of the arms, those that lose least in their worst case first."""
    best = np.array([table.best_fixed(name)[1] for name in table.situations])
    rows = []
    for method in ARMS:
        found = np.array([table.accuracy(name, method) for name in table.situations])
        means = found.mean(axis=1)
        spreads = found.std(axis=1, ddof=1) if table.seeds > 1 else np.zeros(len(means))
        rows.append(Row(method, means, spreads, best - means))
    return sorted(rows, key=lambda row: row.lost.max())


def draw(rows: list[Row], path: Path) -> None:
    """Draws the points that each method loses in each situation."""
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(7, 0.3 * len(rows) + 1.3), layout="constrained")
        ax = figure.subplots()
        places = np.arange(len(rows))[::-1]
        worst = np.array([row.lost.max() for row in rows])
        fixed = np.array([row.method.startswith("fixed") for row in rows])
        colors = np.where(fixed, "0.8", "tab:blue")
        ax.barh(places, worst, color=colors, alpha=0.45, height=0.7)
        lost = np.array([row.lost for row in rows])
        for name, column, marker in zip(CROSS, lost.T, "o^sD", strict=True):
            ax.plot(column, places, marker, ms=4, color="black", alpha=0.7, label=name)
        ax.set_yticks(places, [row.method for row in rows])
        ax.axvline(0, color="black", lw=0.8)
        ax.set_xlabel("points of accuracy lost against the best fixed weight")
        ax.set_title("Cost of one training if the right weight is unknown (bar: worst)")
        ax.legend(frameon=False, loc="upper right")
    figure.savefig(path, dpi=150)


def _cells(row: Row) -> tuple[str, ...]:
    found = zip(row.accuracies, row.spreads, strict=True)
    return (
        row.method,
        *(f"{mean:.1f} ± {spread:.1f}" for mean, spread in found),
        f"{row.lost.max():.1f}",
    )
