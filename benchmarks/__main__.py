"""Runs all benchmarks: tables, ``benchmarks/results/results.json`` and figures.

Run with ``python -m benchmarks`` from the root; ``--help`` lists the options.
"""

import dataclasses
import json
import os
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import tyro
from matplotlib.ticker import NullFormatter
from rich.console import Console
from rich.table import Table

from benchmarks import combination, compile_time, peers, train_step
from benchmarks._trees import LARGE, SHAPES

RESULTS = Path(__file__).with_name("results")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        trees: Shapes of the parameters.
        large: Also shapes with 100M parameters.
        k: Numbers of losses.
        rounds: Timed calls of each program.
        methods: Names of rows of ``tests/_methods.py``; default: all.
        leaves: Sizes of the trees of the part ``compile``; 10,000 takes minutes.
        parts: Benchmarks to run.
        peer_python: A Python with torch and torchjd, for the part ``peers``.
    """

    trees: tuple[str, ...] = tuple(name for name in SHAPES if name not in LARGE)
    large: bool = False
    k: tuple[int, ...] = (2, 4, 8)
    rounds: int = 10
    methods: tuple[str, ...] | None = None
    leaves: tuple[int, ...] = (100, 1_000)
    parts: tuple[str, ...] = ("combination", "growth", "compile", "steps", "peers")
    peer_python: str | None = None


def table(title: str, rows: list[dict]) -> Table:
    """Makes a table of rows with equal keys, numbers to three digits."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    view = Table(*columns, title=title)
    for row in rows:
        cells = [row.get(column, "") for column in columns]
        view.add_row(*(f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells))
    return view


def figure(growth: list[dict], compiled: list[dict], path: Path) -> None:
    """Draws the growth of the Gram matrix, its bound and compile time, log-log."""
    axes = list(dict.fromkeys(row["axis"] for row in growth))
    fig, panels = plt.subplots(1, len(axes) + bool(compiled), figsize=(13, 3.2))
    for panel, axis in zip(panels, axes, strict=False):
        part = [row for row in growth if row["axis"] == axis]
        x = [row["value"] for row in part]
        panel.loglog(x, [row["gram_ms"] for row in part], "o-", label="gram")
        panel.loglog(x, [row["bound_ms"] for row in part], "k--", label="read once")
        panel.set_xlabel(axis)
        if axis == "K":  # less than a decade
            panel.set_xticks(x, map(str, x))
            panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_ylabel("ms")
        panel.legend()
    for i, name in enumerate(dict.fromkeys(row["program"] for row in compiled)):
        for stacked, style in ((False, "o-"), (True, "o--")):
            part = [r for r in compiled if r["program"] == name]
            part = [r for r in part if r["stacked"] == stacked]
            panels[-1].loglog(
                [row["leaves"] for row in part],
                [row["processor_s"] for row in part],
                f"C{i}{style}",
                label=None if stacked else name,
            )
    if compiled:
        panels[-1].set_xlabel("leaves (dashed: stacked by shape)")
        panels[-1].set_ylabel("s of processor time to compile")
        panels[-1].legend(fontsize="small")
    fig.tight_layout()
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main(options: Options) -> None:
    """Measures, prints and writes."""
    RESULTS.mkdir(exist_ok=True)
    console, out = Console(width=140), {}
    trees = options.trees + (LARGE if options.large else ())
    if "combination" in options.parts:
        out["combination"] = [
            row
            for tree in trees
            for k in options.k
            for row in combination.measure(tree, k, options.rounds, options.methods)
        ]
    if "growth" in options.parts:
        out["growth"] = combination.growth(options.rounds)
    if "compile" in options.parts:
        out["compile"] = compile_time.measure(options.leaves)
    if "steps" in options.parts:
        out["steps"] = train_step.measure(options.rounds)
        out["overhead"] = [train_step.overhead()]
    if "peers" in options.parts and options.peer_python:
        out["peers"] = [
            row
            for tree in trees
            for row in peers.measure(tree, 2, 3, options.peer_python)
        ]
        out["peer steps"] = peers.measure_steps(options.rounds, options.peer_python)
    if "growth" in out:
        figure(out["growth"], out.get("compile", []), RESULTS / "growth.png")
    for title, rows in out.items():
        console.print(table(title, rows))
    machine = {"cpus": os.cpu_count(), "jax": jax.__version__, "load": os.getloadavg()}
    path = RESULTS / "results.json"
    path.write_text(json.dumps({"machine": machine, **out}, indent=1) + "\n")
    console.print(f"Written: {path}")


if __name__ == "__main__":
    main(tyro.cli(Options))
