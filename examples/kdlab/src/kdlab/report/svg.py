"""Draws line charts as SVG, which a page can zoom but which need no script."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 8, 8, 34
UNITS = 1000  # width and height of the plane of a chart
COLORS = 10
FEW = 4  # maximum number of overlapping bands


class Line(NamedTuple):
    """A line with a band around it.

    Attributes:
        name: Name in the legend.
        number: Number that determines colour and dashes.
        x: ``[n]``.
        mean: ``[n]``; values that are not finite leave a gap.
        spread: Half of the width of the band, ``[n]``.
    """

    name: str
    number: int
    x: np.ndarray
    mean: np.ndarray
    spread: np.ndarray


def draw_chart(
    title: str, lines: Sequence[Line], *, xlabel: str = "epoch", log: bool = False
) -> str:
    """Draws a chart.

    Args:
        title: Title of the chart.
        lines: The lines.
        xlabel: Label of the horizontal axis.
        log: Whether the vertical axis is logarithmic.

    Returns:
        A ``<figure>``, or an empty string if there is nothing to draw.
    """
    drawn = [(line, *_heights(line, log)) for line in lines]
    drawn = [row for row in drawn if np.isfinite(row[1]).any()]
    if not drawn:
        return ""
    x0, x1 = _span([line.x for line, *_ in drawn], 0.0)
    y0, y1 = _span([np.concatenate(row[1:]) for row in drawn], 0.04)
    paths = []
    for line, mean, low, high in drawn:
        x = UNITS * (line.x - x0) / (x1 - x0)
        mean, low, high = (UNITS * (y1 - y) / (y1 - y0) for y in (mean, low, high))
        style = (
            f'class="c{line.number % COLORS} d{line.number // COLORS % 2}" '
            f'data-name="{escape(line.name)}"'
        )
        if np.any(line.spread > 0):
            around = np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]])
            paths.append(f'<path {style} data-band="1" d="{_path(*around)}Z"/>')
        if len(x) == 1:  # a path through one point is not drawn
            style += ' data-dot="1"'
            x, mean = np.repeat(x, 2), np.repeat(mean, 2)
        paths.append(f'<path {style} data-line="1" d="{_path(x, mean)}"/>')
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return (
        f'<figure class="chart" data-x0="{x0:.9g}" data-x1="{x1:.9g}" '
        f'data-y0="{y0:.9g}" data-y1="{y1:.9g}" data-log="{int(log)}" '
        f'data-many="{int(len(drawn) > FEW)}">'
        f"<figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)} over {escape(xlabel)}">'
        f'<g class="ticks">{_ticks(x0, x1, y0, y1, log)}</g>'
        f'<text class="label" x="{LEFT + inner_width / 2:g}" y="{HEIGHT - 3}">'
        f"{escape(xlabel)}</text>"
        f'<svg class="plane" x="{LEFT}" y="{TOP}" width="{inner_width}" '
        f'height="{inner_height}" viewBox="0 0 {UNITS} {UNITS}" '
        f'preserveAspectRatio="none">{"".join(paths)}</svg>'
        f'<rect class="catch" x="{LEFT}" y="{TOP}" width="{inner_width}" '
        f'height="{inner_height}"/></svg></figure>'
    )


def nice_ticks(low: float, high: float, count: int = 5) -> np.ndarray:
    """Returns about `count` round numbers in an interval.

    Examples:
        >>> print(nice_ticks(0.0, 21.0))
        [ 0.  5. 10. 15. 20.]
    """
    rough = (high - low) / count
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * min((1, 2, 5, 10), key=lambda m: abs(np.log(m * power / rough)))
    ticks = np.arange(np.ceil(low / step), np.floor(high / step) + 1)
    return step * ticks + 0.0  # no minus zero


def _heights(line: Line, log: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the mean and both edges of the band in axis coordinates."""
    rows = line.mean, line.mean - line.spread, line.mean + line.spread
    if not log:
        return rows
    mean, low, high = (np.log10(np.where(row > 0, row, np.nan)) for row in rows)
    # A band that reaches zero ends a decade below the line.
    return mean, np.where(np.isfinite(low), low, mean - 1), high


def _span(rows: Sequence[np.ndarray], pad: float) -> tuple[float, float]:
    values = np.concatenate(rows)
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        low, high = low - 0.5, high + 0.5
    extra = pad * (high - low)
    return low - extra, high + extra


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """Returns the path through the finite points."""
    parts, pen = [], "M"
    for a, b in zip(x, y, strict=True):
        if not (np.isfinite(a) and np.isfinite(b)):
            pen = "M"
            continue
        parts.append(f"{pen}{a:.1f} {b:.1f}")
        pen = "L"
    return "".join(parts)


def _ticks(x0: float, x1: float, y0: float, y1: float, log: bool) -> str:
    """Draws axis labels and grid lines; the page's script redraws them alike."""
    out = []
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    for tick in nice_ticks(x0, x1):
        x = LEFT + width * (tick - x0) / (x1 - x0)
        out.append(
            f'<text class="x" x="{x:.1f}" y="{TOP + height + 14}">{tick:g}</text>'
        )
    for tick in nice_ticks(y0, y1):
        y = TOP + height * (y1 - tick) / (y1 - y0)
        text = f"{10**tick:.4g}" if log else f"{tick:.6g}"
        out.append(f'<line x1="{LEFT}" x2="{LEFT + width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="y" x="{LEFT - 5}" y="{y + 4:.1f}">{text}</text>')
    return "".join(out)
