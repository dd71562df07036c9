"""Metrics of the finished trainings of a method, over the steps."""

from pathlib import Path

import numpy as np

from kdlab.runs.plot import read_finished

Curve = tuple[np.ndarray, np.ndarray]
"""Steps and values ``[seeds, steps]``."""


def read_curve(folder: Path, key: str) -> Curve | None:
    """Reads a metric of the finished seeds of a method; None if there is none."""
    known = (
        {int(record["step"]): record[key] for record in records if key in record}
        for records in read_finished(folder)
    )
    runs = [run for run in known if run]
    if not runs:
        return None
    steps = sorted(set.intersection(*map(set, runs)))
    values = [[run[step] for step in steps] for run in runs]
    return np.array(steps), np.array(values)
