"""Metrics of the finished trainings of a method, over the steps."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kdlab.runs.plot import read_finished

Curve = tuple[np.ndarray, np.ndarray]
"""Steps and values ``[seeds, steps]``."""


def read_curves(folder: Path) -> dict[str, Curve]:
    """Reads the metrics of the finished seeds of a method, by name."""
    finished = read_finished(folder)
    curves = {}
    for key in {key for records in finished for record in records for key in record}:
        known = (
            {int(record["step"]): record[key] for record in records if key in record}
            for records in finished
        )
        runs = [run for run in known if run]
        steps = sorted(set.intersection(*map(set, runs)))
        values = [[run[step] for step in steps] for run in runs]
        curves[key] = np.array(steps), np.array(values)
    return curves


def share_of_distillation(curves: Mapping[str, Curve]) -> Curve | None:
    """Returns the share of distillation in the weights; None if there are none."""
    if not {"weight/task", "weight/distill"} <= curves.keys():
        return None
    (steps, task), (_, distill) = curves["weight/task"], curves["weight/distill"]
    return steps, distill / (task + distill)
