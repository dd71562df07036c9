"""The table of an experiment: average precision of the methods over the seeds."""

from collections.abc import Sequence

import numpy as np

from kdlab.basics.display import format_markdown
from kdlab.detection.config import DetectConfig
from kdlab.detection.experiment import TEACHER
from kdlab.runs import files

NUMBERS = ("ap", "ap50", "ap75", "ar100")
HEAD = ("method", "AP", "AP50", "AP75", "AR100", "seeds")


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


def to_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Formats the table for a page."""
    marked = [(f"`{row[0]}`", *row[1:]) for row in rows]
    return "\n".join([*format_markdown(HEAD, marked, left=(0,)), ""])


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}"
