"""Analysis of the scores of a study: pure functions of finished trainings."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kdlab.study.search import Search, search
from kdlab.study.space import RECOMMENDED, Setting, Space, distinct, key, points

Scores = Mapping[tuple, Sequence[float]]
"""Accuracy of each seed, by the name of the training."""


class Spread(NamedTuple):
    """Mean and sample standard deviation over seeds."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> "Spread":
        """Of some numbers; no deviation of a single one."""
        array = np.asarray(values, float)
        deviation = array.std(ddof=1) if len(array) > 1 else 0.0
        return cls(float(array.mean()), float(deviation))

    def text(self, scale: float = 100, digits: int = 1) -> str:
        """For a table, in points."""
        mean, deviation = scale * self.mean, scale * self.deviation
        return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def effects(space: Space, scores: Scores) -> dict[str, dict[object, np.ndarray]]:
    """Main effects: what a value of a knob scores on average over all other knobs.

    Args:
        space: The grid.
        scores: Those of its trainings that are finished; the average is over them.

    Returns:
        By knob and value, the average for each seed, ``[s]``. Knobs with one value and
        values without a finished training are left out.
    """
    done = [point for point in points(space) if key(point) in scores]
    out: dict[str, dict[object, np.ndarray]] = {}
    for knob, values in space.items():
        if len(values) == 1:
            continue
        rows = {
            value: [scores[key(point)] for point in done if point[knob] == value]
            for value in values
        }
        out[knob] = {value: np.mean(row, axis=0) for value, row in rows.items() if row}
    return out


def cost(effect: Mapping[object, np.ndarray]) -> tuple[object, object, Spread]:
    """Best and worst value of a knob, and what lies between them, over seeds."""
    order = sorted(effect, key=lambda value: float(np.mean(effect[value])))
    return order[-1], order[0], Spread.of(effect[order[-1]] - effect[order[0]])


def best(settings: Sequence[Setting], scores: Scores) -> Setting | None:
    """The first of the best finished settings; None if none is finished."""
    return max(
        (setting for setting in settings if key(setting) in scores),
        key=lambda setting: float(np.mean(scores[key(setting)])),
        default=None,
    )


def worst(settings: Sequence[Setting], scores: Scores) -> Setting | None:
    """The first of the worst finished settings; None if none is finished."""
    return min(
        (setting for setting in settings if key(setting) in scores),
        key=lambda setting: float(np.mean(scores[key(setting)])),
        default=None,
    )


def recommended_family(space: Space) -> list[Setting]:
    """The settings that the recommendation leaves open: alpha and tau_teacher."""
    named = ("distance", "tau_student", "teacher")
    return [
        point
        for point in points(space)
        if all(point[knob] == RECOMMENDED[knob] for knob in named)
    ]


def gain(score: float, space: Space, scores: Scores) -> float:
    """Share of the grid's gain over its worst setting that a score has."""
    means = [np.mean(scores[key(p)]) for p in points(space) if key(p) in scores]
    lowest, highest = min(means), max(means)
    return float((score - lowest) / (highest - lowest)) if highest > lowest else 1.0


def replay(
    make: Callable[[Space, int], Search],
    space: Space,
    scores: Scores,
    *,
    trials: int,
    repeats: int,
) -> list[float]:
    """What a random search finds on a finished grid, for several of its own seeds.

    No training is run: the grid knows all the answers.
    """
    means = {name: float(np.mean(values)) for name, values in scores.items()}

    def known(settings: Sequence[Setting]) -> list[float]:
        return [means[key(setting)] for setting in settings]

    return [
        search(make(space, seed), known, trials=trials).score for seed in range(repeats)
    ]


def alpha_sweep(space: Space, scores: Scores) -> dict[float, Sequence[float]]:
    """Scores over alpha with the other knobs as recommended, as far as finished."""
    (balancer,) = space["balancer"]
    line = [RECOMMENDED | {"balancer": balancer, "alpha": a} for a in space["alpha"]]
    return {
        point["alpha"]: scores[key(point)] for point in line if key(point) in scores
    }


def finished(space: Space, scores: Scores) -> tuple[int, int]:
    """Number of finished trainings of a grid, and of all."""
    all_of = distinct(points(space))
    return sum(key(point) in scores for point in all_of), len(all_of)
