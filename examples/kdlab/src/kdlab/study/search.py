"""Searches: from a function that scores settings to the settings worth trying.

A search knows nothing of training. It asks for scores in lists, higher is better, and
asks for the same ones when it is run again, so that with remembered scores it goes on
where it was stopped.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import optuna

from kdlab.study.space import Setting, Space, distinct, key, points

Evaluate = Callable[[Sequence[Setting]], Sequence[float]]
"""From settings to their scores; may raise :class:`BudgetSpent`."""


class BudgetSpent(Exception):
    """No more trainings may be started.

    Attributes:
        scores: Those of a list that were finished before, by name.
    """

    def __init__(self, scores: dict[tuple, float] | None = None):
        super().__init__("the budget is spent")
        self.scores = scores or {}


class Found(NamedTuple):
    """What a search found.

    Attributes:
        setting: The best setting that was scored; None if none was.
        score: Its score.
        trials: Scores of the different trainings it asked for, by name, in order.
        complete: Whether it came to its own end.
    """

    setting: Setting | None
    score: float
    trials: dict[tuple, float]
    complete: bool


Search = Callable[[Evaluate], object]
"""Asks for scores; returns False where it did not come to its own end."""


def search(run: Search, evaluate: Evaluate, *, trials: int | None = None) -> Found:
    """Runs a search and keeps a record of it.

    Args:
        run: The search with everything but the scoring function given.
        evaluate: Scores settings.
        trials: Most different trainings that it may ask for.

    Returns:
        The best setting, the first of equals, and the record.
    """
    scores: dict[tuple, float] = {}
    settings_of: dict[tuple, Setting] = {}

    def recorded(settings: Sequence[Setting]) -> list[float]:
        fresh = [s for s in distinct(settings) if key(s) not in scores]
        settings_of.update({key(setting): dict(setting) for setting in fresh})
        room = len(fresh) if trials is None else trials - len(scores)
        try:
            values = evaluate(fresh[:room]) if fresh[:room] else []
        except BudgetSpent as spent:
            scores.update(spent.scores)
            raise
        scores.update(zip(map(key, fresh), map(float, values), strict=False))
        if len(fresh) > room:
            raise BudgetSpent
        return [scores[key(setting)] for setting in settings]

    try:
        complete = run(recorded) is not False
    except BudgetSpent:
        complete = False
    best = max(scores, key=lambda name: scores[name], default=None)
    if best is None:
        return Found(None, -math.inf, scores, complete)
    return Found(settings_of[best], scores[best], scores, complete)


def greedy(space: Space, start: Setting) -> Search:
    """One knob at a time, from a start, until a pass over all knobs improves nothing.

    The knobs are taken in the order of the space; each keeps its best value, the
    present one among equals.
    """

    def run(evaluate: Evaluate) -> None:
        current = dict(start)
        score = evaluate([current])[0]
        improved = True
        while improved:
            improved = False
            for knob, values in space.items():
                candidates = [current | {knob: value} for value in values]
                scores = evaluate(candidates)
                best = int(np.argmax(scores))
                if scores[best] > score:
                    current, score, improved = candidates[best], scores[best], True

    return run


def grid(space: Space) -> Search:
    """Every setting."""

    def run(evaluate: Evaluate) -> None:
        evaluate(distinct(points(space)))

    return run


def sampled(space: Space, sampler: optuna.samplers.BaseSampler) -> Search:
    """Settings that an Optuna sampler proposes, until the budget is spent.

    The sampler learns from this search alone, whatever else is remembered.
    """
    size = len(distinct(points(space)))
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        knob: optuna.distributions.CategoricalDistribution(values)
        for knob, values in space.items()
    }

    def run(evaluate: Evaluate) -> bool:
        study = optuna.create_study(direction="maximize", sampler=sampler)
        seen: set[tuple] = set()
        # A sampler proposes some settings again and again.
        for _ in range(20 * size):
            trial = study.ask(distributions)
            seen.add(key(trial.params))
            study.tell(trial, evaluate([trial.params])[0])
            if len(seen) == size:
                return True
        return False

    return run


def random(space: Space, seed: int) -> Search:
    """Random settings."""
    return sampled(space, optuna.samplers.RandomSampler(seed=seed))


def tpe(space: Space, seed: int) -> Search:
    """Settings by the tree-structured Parzen estimator."""
    return sampled(space, optuna.samplers.TPESampler(seed=seed))
