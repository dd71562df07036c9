"""Writes the tables and the picture of the comparison."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from kdlab.basics.display import format_markdown
from kdlab.basics.writing import write_text
from kdlab.regret.analysis import SEARCHED, Regret, Table

BEGIN, END = "<!-- regret:begin -->", "<!-- regret:end -->"
SHOWN = (
    *("fixed 0.5", "fixed 0.9", "dto_kd", "uncertainty"),
    *("reference_cosine", "hypergradient, every 4th step", "weight_search"),
)
"""Methods whose accuracy is shown in every situation."""


def make_rows(table: Table) -> list[tuple[str, ...]]:
    """Makes the cells of the table of methods."""
    return [
        (
            regret.method,
            str(regret.trainings),
            f"{regret.cost:g}",
            f"{regret.against_search.mean():.2f} ± {regret.spread:.2f}",
            f"{regret.against_search.max():.1f}",
            regret.worst(table.situations),
            f"{regret.against_best.mean():.2f}",
            f"{regret.against_best.max():.1f}",
        )
        for regret in table.regrets()
    ]


HEAD = (
    *("method", "trainings", "step time", "mean regret", "worst", "worst situation"),
    *("mean to best", "worst to best"),
)


def make_markdown(table: Table) -> str:
    """Returns both tables as Markdown."""
    lines = [
        f"{len(table.situations)} situations, {table.seeds} seeds.",
        "",
        *format_markdown(HEAD, make_rows(table), left=(0, 5)),
        "",
        *format_markdown(*_accuracies(table), left=(0,)),
    ]
    return "\n".join(lines) + "\n"


def write_page(path: Path, table: Table) -> None:
    """Replaces the tables of a page, between its two markers.

    Raises:
        ValueError: If the page has no markers.
    """
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{path} has no lines {BEGIN} and {END} to write between")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    write_text(path, f"{before}{BEGIN}\n{make_markdown(table)}{END}{after}")


def draw(table: Table, path: Path) -> None:
    """Draws the regret of each method in each situation."""
    regrets = [r for r in reversed(table.regrets()) if r.method != SEARCHED]
    style = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(6.4, 0.2 * len(regrets) + 0.9), layout="constrained")
        ax = figure.subplots()
        for row, regret in enumerate(regrets):
            _draw_row(ax, row, regret)
        ax.axvline(0, color="0.5", lw=0.8)
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xticks([-1, 0, 1, 3, 10, 30], ["-1", "0", "1", "3", "10", "30"])
        ax.set_yticks(range(len(regrets)), [regret.method for regret in regrets])
        ax.set_ylim(-0.7, len(regrets) - 0.3)
        ax.set_xlabel(
            "points of accuracy lost against a weight searched with nine trainings\n"
            "(one dot per situation; bar: mean; red: worst case)"
        )
    figure.savefig(path, dpi=150)


def _draw_row(ax: mpl.axes.Axes, row: int, regret: Regret) -> None:
    losses = regret.against_search
    ax.plot(losses, np.full(len(losses), row), "o", ms=3, alpha=0.5, color="tab:blue")
    ax.plot([losses.mean()], [row], "|", ms=9, mew=2, color="black")
    ax.plot([losses.max()], [row], "o", ms=5, color="tab:red")


def _accuracies(table: Table) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    shown = [name for name in (SEARCHED, *SHOWN) if name in table.methods]
    head = ("situation", "best weight", "its accuracy", *shown)
    rows: list[tuple[str, ...]] = []
    for situation in table.situations:
        best, accuracy = table.best_fixed(situation)
        means = [table.accuracy(situation, name).mean() for name in shown]
        cells = [f"{mean:.1f}" for mean in (accuracy, *means)]
        rows.append((situation, best.removeprefix("fixed "), *cells))
    return head, rows
