"""The tables of an experiment: average precision, and gradients, over the seeds."""

from collections.abc import Sequence

import numpy as np

from kdlab.basics.display import format_markdown
from kdlab.detection.config import DetectConfig
from kdlab.detection.curves import read_curves, share_of_distillation
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
        curves = read_curves(config.directory / method)
        share = share_of_distillation(curves)
        if share is None or "gradient/cosine/distill" not in curves:
            continue
        cosine, conflict, length = (
            curves[f"gradient/{name}/distill"][1].mean()
            for name in ("cosine", "conflict", "dominance")
        )
        losses = (curves[f"loss/{x}"][1][:, -1].mean() for x in ("task", "distill"))
        cells = f"{cosine:.2f}", f"{conflict:.0%}", f"{length:.2f}"
        last = (f"{loss:.2f}" for loss in losses)
        rows.append((method, *cells, f"{share[1].mean():.0%}", *last))
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
