"""The sections of the report with charts and figures."""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from kdlab.minima.measure import Measures
from kdlab.report import figures
from kdlab.report.sources import Group
from kdlab.report.svg import Line, draw_chart
from kdlab.runs import files
from kdlab.runs.plot import share_of, use_style

MOST_IMAGES = 8  # maximum number of minima in one figure


class Section(NamedTuple):
    """A section of the page, omitted if it has no charts and images."""

    anchor: str
    title: str
    note: str
    charts: list[str]
    images: list[dict[str, str]]


def make_sections(groups: Sequence[Group]) -> Iterator[Section]:
    """Yields all sections, including empty ones."""
    draw = _Drawer(groups)
    names = files.list_losses(group.history for group in groups)
    yield Section(
        "curves",
        "Curves",
        "Mean over seeds; the band is one sample standard deviation. Drag to zoom, or "
        "click a name above to hide its line. Losses: mean over the steps of an epoch.",
        draw.many(
            ("Test accuracy (%)", "test/accuracy", 100, False),
            ("Task loss, training", "train/loss/task", 1, True),
            *(
                (f"{_title(name)}, training", f"train/loss/{name}", 1, True)
                for name in names
            ),
            ("Task loss, test", "test/loss/task", 1, True),
        ),
        [],
    )
    yield Section(
        "balance",
        "Balance",
        "Which loss drives the student. Weight: share of a distillation loss in the "
        "sum of the weights. Gradients: all parameters, last batch of each epoch. "
        "Steps in conflict: all steps, for methods that compute every gradient anyway. "
        "Buffers: DOT's momenta, compared with the update.",
        [
            *(chart for name in names for chart in _balance_of(draw, name)),
            *draw.many(
                (
                    "Distance from Pareto stationarity",
                    "gradient/stationarity",
                    1,
                    False,
                ),
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
        "Training losses of the first seed in evaluation mode, along random directions "
        "scaled to the filter norms of each network. The random draw is the same for "
        "all.",
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
        "side by side, but the step times in the table, if given, were.",
        draw.many(("Seconds per epoch", "seconds", 1, False)),
        [],
    )


class _Drawer:
    """A factory of charts with one line per group, in the group's colour."""

    def __init__(self, groups: Sequence[Group]):
        self._groups = groups

    def many(self, *wanted: tuple[str, str, float, bool]) -> list[str]:
        """Draws one chart for each (title, metric, scale, logarithmic)."""
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
        """Draws the chart of a function of each group, ``[seeds, epochs]``."""
        lines = []
        for i, group in enumerate(self._groups):
            rows = values(group)
            if rows is not None:
                spreads = rows.std(0, ddof=1) if len(rows) > 1 else 0 * rows[0]
                epochs = group.history["epoch"][0]
                lines.append(Line(group.name, i, epochs, rows.mean(0), spreads))
        drawn = draw_chart(title, lines, log=log)
        return [drawn] if drawn else []

    def measured(self, title: str, key: str) -> list[str]:
        """Draws the chart of a measure along the axis of a landscape."""
        lines = []
        for i, group in enumerate(self._groups):
            if group.measures:
                found = group.measures[0]
                axis, curve = found["axis"], found[key]
                lines.append(Line(group.name, i, axis, curve, 0 * curve))
        drawn = draw_chart(title, lines, xlabel="step, in filter norms")
        return [drawn] if drawn else []


def _title(name: str) -> str:
    return "Distillation loss" if name == "distill" else f"Loss {name}"


def _balance_of(draw: _Drawer, name: str) -> Iterator[str]:
    """Yields the charts of a distillation loss beside the task loss."""
    title = _title(name)
    yield from draw.one(f"{title}: weight", lambda group: share_of(group.history, name))
    yield from draw.many(
        (f"{title}: cosine with the task", f"gradient/cosine/{name}", 1, False),
        (f"{title}: norm / task's", f"gradient/dominance/{name}", 1, True),
        (
            f"{title}: steps in conflict (%)",
            f"train/gradient/conflict/{name}",
            100,
            False,
        ),
    )


def _lambda_images(groups: Sequence[Group]) -> list[dict[str, str]]:
    """Draws the parabola of the first method that adapts its weights, if any."""
    for group in groups:
        moves = share_of(group.history, "distill")
        if moves is not None and "gradient/lambda/low" in group.history:
            if np.ptp(moves) < 1e-3:
                continue
            return [
                _image(
                    f"Decrease over lambda during training, {group.name}, first seed",
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
        images.append(_image("Task loss as a surface", figures.draw_surfaces(planes)))
    if sharp:
        images.append(
            _image("Sharpness, one point per seed", figures.draw_sharpness(sharp))
        )
    if first:
        title = "Mean logits by class compared with the teacher's, test images"
        images.append(_image(title, figures.draw_correlations(_some(first))))
    return images


def _some(found: Mapping[str, Measures]) -> dict[str, Measures]:
    return dict(list(found.items())[:MOST_IMAGES])


def _image(title: str, figure: Figure) -> dict[str, str]:
    file = io.BytesIO()
    with use_style():
        figure.savefig(file, dpi=90)
    return {"title": title, "data": base64.b64encode(file.getvalue()).decode()}
