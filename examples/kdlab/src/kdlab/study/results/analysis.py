"""Analyses the scores of finished trainings."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kdlab.study.trials.search import Search, search
from kdlab.study.trials.space import (
    RECOMMENDED,
    Setting,
    Space,
    deduplicate,
    key,
    list_settings,
)

Scores = Mapping[tuple, Sequence[float]]
"""Accuracies by seed, for each training."""


class Spread(NamedTuple):
    """Mean and sample standard deviation over seeds."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> "Spread":
        """Computes the spread of some numbers; the deviation of a single one is 0."""
        array = np.asarray(values, float)
        deviation = array.std(ddof=1) if len(array) > 1 else 0.0
        return cls(float(array.mean()), float(deviation))

    def text(self, scale: float = 100, digits: int = 1) -> str:
        """Formats the spread for a table, in points."""
        mean, deviation = scale * self.mean, scale * self.deviation
        return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def main_effects(space: Space, scores: Scores) -> dict[str, dict[object, np.ndarray]]:
    """Computes main effects: mean scores of each value of a knob over the other knobs.

    Args:
        space: The grid.
        scores: Scores of its finished trainings, over which the means are taken.

    Returns:
        Means for each seed, ``[s]``, by knob and value, without knobs that have only
        one value and values without a finished training.
    """
    done = [point for point in list_settings(space) if key(point) in scores]
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


def cost_of_choice(
    effect: Mapping[object, np.ndarray],
) -> tuple[object, object, Spread]:
    """Returns the best and worst values of a knob and their difference over seeds."""
    order = sorted(effect, key=lambda value: float(np.mean(effect[value])))
    return order[-1], order[0], Spread.of(effect[order[-1]] - effect[order[0]])


def find_best(settings: Sequence[Setting], scores: Scores) -> Setting | None:
    """Returns the (first) best finished setting; None if none is finished."""
    return max(
        (setting for setting in settings if key(setting) in scores),
        key=lambda setting: float(np.mean(scores[key(setting)])),
        default=None,
    )


def find_worst(settings: Sequence[Setting], scores: Scores) -> Setting | None:
    """Returns the (first) worst finished setting; None if none is finished."""
    return min(
        (setting for setting in settings if key(setting) in scores),
        key=lambda setting: float(np.mean(scores[key(setting)])),
        default=None,
    )


def recommended_family(space: Space) -> list[Setting]:
    """Returns the recommended settings for all values of alpha and tau_teacher."""
    named = ("distance", "tau_student", "teacher")
    return [
        point
        for point in list_settings(space)
        if all(point[knob] == RECOMMENDED[knob] for knob in named)
    ]


def relative_gain(score: float, space: Space, scores: Scores) -> float:
    """Returns a score as a fraction of the way from the grid's worst to its best."""
    means = [np.mean(scores[key(p)]) for p in list_settings(space) if key(p) in scores]
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
    """Repeats a random search on a finished grid with several search seeds.

    Scores are looked up in the grid; nothing is trained.
    """
    means = {name: float(np.mean(values)) for name, values in scores.items()}

    def known(settings: Sequence[Setting]) -> list[float]:
        return [means[key(setting)] for setting in settings]

    return [
        search(make(space, seed), known, trials=trials).score for seed in range(repeats)
    ]


def alpha_sweep(space: Space, scores: Scores) -> dict[float, Sequence[float]]:
    """Returns finished scores by alpha, with the other knobs as recommended."""
    (balancer,) = space["balancer"]
    line = [RECOMMENDED | {"balancer": balancer, "alpha": a} for a in space["alpha"]]
    return {
        point["alpha"]: scores[key(point)] for point in line if key(point) in scores
    }


def count_finished(space: Space, scores: Scores) -> tuple[int, int]:
    """Counts the finished trainings of a grid and all of them."""
    all_of = deduplicate(list_settings(space))
    return sum(key(point) in scores for point in all_of), len(all_of)
