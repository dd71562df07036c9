"""The parts of the report between its table and its end: charts and figures."""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from kdlab.minima.measure import Measures
from kdlab.report import figures
from kdlab.report.sources import Group
from kdlab.report.svg import Line, chart
from kdlab.runs.plot import style

MOST_IMAGES = 8  # minima in one figure


class Section(NamedTuple):
    """A part of the page; it is left out if it shows nothing."""

    anchor: str
    title: str
    note: str
    charts: list[str]
    images: list[dict[str, str]]


def sections(groups: Sequence[Group]) -> Iterator[Section]:
    """All parts, those that show nothing too."""
    draw = _Drawer(groups)
    yield Section(
        "curves",
        "Curves",
        "Mean over seeds; the band is one sample standard deviation. Drag to zoom, or "
        "click a name above to hide its line. Losses: mean over the steps of an epoch.",
        draw.many(
            ("Test accuracy (%)", "test/accuracy", 100, False),
            ("Task loss, training", "train/loss/task", 1, True),
            ("Distillation loss, training", "train/loss/distill", 1, True),
            ("Task loss, test", "test/loss/task", 1, True),
        ),
        [],
    )
    yield Section(
        "balance",
        "Balance",
        "Who moves the student. Weight: share of the distillation loss in the update. "
        "The gradients of all parameters were looked at on the last batch of an epoch; "
        "the steps in conflict are of all steps, for methods that see both gradients "
        "anyway. Buffers: momentum of DOT, against the update.",
        [
            *draw.one("Weight of the distillation loss", _share),
            *draw.many(
                ("Cosine of the two gradients", "gradient/cosine/distill", 1, False),
                ("Length, distillation / task", "gradient/dominance/distill", 1, True),
                (
                    "Steps in conflict (%)",
                    "train/gradient/conflict/distill",
                    100,
                    False,
                ),
                ("Distance from Pareto-stationary", "gradient/stationarity", 1, False),
                (
                    "Cosine, distillation buffer",
                    "train/buffer/alignment/distill",
                    1,
                    False,
                ),
                ("Cosine, task buffer", "train/buffer/alignment/task", 1, False),
            ),
        ],
        _lambda_images(groups),
    )
    yield Section(
        "minima",
        "Minima",
        "Training losses along random directions, each filter scaled to that of the "
        "network, in evaluation mode; of the first seed. The same draw for all.",
        [
            *draw.measured("Task loss along a direction", "curve/task"),
            *draw.measured("Distillation loss along a direction", "curve/distill"),
        ],
        _minima_images(groups),
    )
    yield Section(
        "cost",
        "Wall time",
        "Seconds of training in each epoch, without evaluation. Runs were not timed "
        "side by side; the time of a step in the table was, where it is given.",
        draw.many(("Seconds of an epoch", "seconds", 1, False)),
        [],
    )


class _Drawer:
    """Charts with one line a group; a group keeps its colour."""

    def __init__(self, groups: Sequence[Group]):
        self._groups = groups

    def many(self, *wanted: tuple[str, str, float, bool]) -> list[str]:
        """One chart for each (title, metric, scale, logarithmic)."""
        out: list[str] = []
        for title, key, scale, log in wanted:

            def values(group: Group, key: str = key, scale: float = scale) -> Any:
                found = group.history.get(key)
                return None if found is None else scale * found

            out += self.one(title, values, log=log)
        return out

    def one(
        self, title: str, values: Callable[[Group], Any], *, log: bool = False
    ) -> list[str]:
        """The chart of what a function makes of each group, ``[seeds, epochs]``."""
        lines = []
        for i, group in enumerate(self._groups):
            rows = values(group)
            if rows is not None:
                spreads = rows.std(0, ddof=1) if len(rows) > 1 else 0 * rows[0]
                epochs = group.history["epoch"][0]
                lines.append(Line(group.name, i, epochs, rows.mean(0), spreads))
        drawn = chart(title, lines, log=log)
        return [drawn] if drawn else []

    def measured(self, title: str, key: str) -> list[str]:
        """The chart of a measure along the axis of a landscape."""
        lines = []
        for i, group in enumerate(self._groups):
            if group.measures:
                found = group.measures[0]
                axis, curve = found["axis"], found[key]
                lines.append(Line(group.name, i, axis, curve, 0 * curve))
        drawn = chart(title, lines, xlabel="step, in lengths of the filters")
        return [drawn] if drawn else []


def _share(group: Group) -> np.ndarray | None:
    task, distill = (
        group.history.get(f"train/weight/{name}") for name in ("task", "distill")
    )
    return None if task is None or distill is None else distill / (task + distill)


def _lambda_images(groups: Sequence[Group]) -> list[dict[str, str]]:
    """The parabola of the method with weights of its own, if there is one."""
    for group in groups:
        moves = _share(group)
        if moves is not None and "gradient/lambda/low" in group.history:
            if np.ptp(moves) < 1e-3:
                continue
            return [
                _image(
                    f"Decrease over lambda as {group.name} trains, first seed",
                    figures.draw_lambda(group.history, group.name),
                )
            ]
    return []


def _minima_images(groups: Sequence[Group]) -> list[dict[str, str]]:
    found = {g.name: g.measures for g in groups if g.measures}
    first = {name: measures[0] for name, measures in found.items()}
    planes = _some({k: m for k, m in first.items() if "plane/task" in m})
    sharp = {
        name: [one for one in measures if "eigenvalues/task" in one]
        for name, measures in found.items()
    }
    sharp = {name: measures for name, measures in sharp.items() if measures}
    images = []
    if planes:
        images.append(_image("Task loss in a plane", figures.draw_contours(planes)))
        images.append(_image("The same as surfaces", figures.draw_surfaces(planes)))
    if sharp:
        images.append(
            _image("Sharpness, a point a seed", figures.draw_sharpness(sharp))
        )
    if first:
        title = "Mean logits by class against the teacher's, test images"
        images.append(_image(title, figures.draw_correlations(_some(first))))
    return images


def _some(found: Mapping[str, Measures]) -> dict[str, Measures]:
    return dict(list(found.items())[:MOST_IMAGES])


def _image(title: str, figure: Figure) -> dict[str, str]:
    file = io.BytesIO()
    with style():
        figure.savefig(file, dpi=90)
    return {"title": title, "data": base64.b64encode(file.getvalue()).decode()}
