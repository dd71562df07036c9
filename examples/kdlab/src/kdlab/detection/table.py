"""The tables of an experiment: average precision, and gradients, over the seeds."""

from collections.abc import Sequence

import numpy as np

from kdlab.basics.display import format_markdown
from kdlab.detection.config import DetectConfig
from kdlab.detection.curves import read_curve
from kdlab.detection.experiment import TEACHER
from kdlab.runs import files

NUMBERS = ("ap", "ap50", "ap75", "ar100")
HEAD = ("method", "AP", "AP50", "AP75", "AR100", "seeds")
GRADIENT_HEAD = ("method", "cosine", "conflict", "length", "weight", "task", "distill")
GRADIENT_CAPTION = (
    "Over the measured steps: mean cosine of the two gradients, share of steps at "
    "which it is negative, length of the gradient of distillation over that of the "
    "task, share of distillation in the weights, and the last losses; over all seeds."
)


def make_rows(config: DetectConfig) -> list[tuple[str, ...]]:
    """Makes one row per trained method, the teacher first.

    Means and standard deviations over the seeds, in percent; seeds that diverged are
    left out and counted.
    """
    rows: list[tuple[str, ...]] = []
    for method in (TEACHER, *config.methods):
        results = files.read_results(config.directory / method)
        kept = [r for r in results if files.DIVERGED not in r]
        if not results:
            continue
        seeds = f"{len(kept)}"
        if len(kept) < len(results):
            seeds += f" ({len(results) - len(kept)} diverged)"
        cells = [_cell([r[f"coco/{name}"] for r in kept]) for name in NUMBERS]
        rows.append((method, *cells, seeds))
    return rows


def make_gradient_rows(config: DetectConfig) -> list[tuple[str, ...]]:
    """Makes one row per student that has a teacher: see `GRADIENT_CAPTION`."""
    rows: list[tuple[str, ...]] = []
    for method in config.methods:

        def values(key: str, method: str = method) -> np.ndarray | None:
            curve = read_curve(config.directory / method, key)
            return None if curve is None else curve[1]

        cosine, task, distill = map(
            values, ("gradient/cosine/distill", "weight/task", "weight/distill")
        )
        lengths = values("gradient/dominance/distill")
        if cosine is None or task is None or distill is None or lengths is None:
            continue
        cells = [
            f"{cosine.mean():.2f}",
            f"{(cosine < 0).mean():.0%}",
            f"{lengths.mean():.2f}",
            f"{(distill / (task + distill)).mean():.0%}",
        ]
        for name in ("loss/task", "loss/distill"):
            losses = values(name)
            cells.append("" if losses is None else f"{losses[:, -1].mean():.2f}")
        rows.append((method, *cells))
    return rows


def to_markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats a table for a page."""
    marked = [(f"`{row[0]}`", *row[1:]) for row in rows]
    return "\n".join([*format_markdown(head, marked, left=(0,)), ""])


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}"
