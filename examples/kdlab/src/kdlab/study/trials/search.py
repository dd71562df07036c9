"""Searches for good settings by a function that scores them.

A search knows nothing about training. It requests lists of scores, higher being better.
It is deterministic, so with stored scores it resumes where it was interrupted.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import optuna

from kdlab.study.trials.space import Setting, Space, deduplicate, key, list_settings

Evaluate = Callable[[Sequence[Setting]], Sequence[float]]
"""Scores settings; may raise :class:`BudgetSpent`."""


class BudgetSpent(Exception):
    """No more trainings may be started.

    Attributes:
        scores: Scores of the requested settings that were finished before.
    """

    def __init__(self, scores: dict[tuple, float] | None = None):
        super().__init__("the budget is spent")
        self.scores = scores or {}


class Found(NamedTuple):
    """The result of a search.

    Attributes:
        setting: Best scored setting; None if none was scored.
        score: Its score.
        trials: Scores of the distinct trainings that it requested, in order.
        complete: Whether it ended by itself.
    """

    setting: Setting | None
    score: float
    trials: dict[tuple, float]
    complete: bool


Search = Callable[[Evaluate], object]
"""Requests scores; returns False if it did not end by itself."""


def search(run: Search, evaluate: Evaluate, *, trials: int | None = None) -> Found:
    """Runs a search and records it.

    Args:
        run: The search.
        evaluate: Scores settings.
        trials: Maximum number of distinct trainings.

    Returns:
        The (first) best setting and the record.
    """
    scores: dict[tuple, float] = {}
    settings_of: dict[tuple, Setting] = {}

    def recorded(settings: Sequence[Setting]) -> list[float]:
        fresh = [s for s in deduplicate(settings) if key(s) not in scores]
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
    """Makes a greedy search: one knob at a time, until a full pass improves nothing.

    Knobs are visited in the order of the space; each takes its best value, and keeps
    the current one in case of a tie.
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
    """Makes a search over all settings."""

    def run(evaluate: Evaluate) -> None:
        evaluate(deduplicate(list_settings(space)))

    return run


def sample(space: Space, sampler: optuna.samplers.BaseSampler) -> Search:
    """Makes a search over proposals of an Optuna sampler, until the budget is spent.

    The sampler learns from this search only, whatever else is stored.
    """
    size = len(deduplicate(list_settings(space)))
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        knob: optuna.distributions.CategoricalDistribution(values)
        for knob, values in space.items()
    }

    def run(evaluate: Evaluate) -> bool:
        study = optuna.create_study(direction="maximize", sampler=sampler)
        seen: set[tuple] = set()
        # Samplers may propose the same setting repeatedly.
        for _ in range(20 * size):
            trial = study.ask(distributions)
            seen.add(key(trial.params))
            study.tell(trial, evaluate([trial.params])[0])
            if len(seen) == size:
                return True
        return False

    return run


def random(space: Space, seed: int) -> Search:
    """Makes a random search."""
    return sample(space, optuna.samplers.RandomSampler(seed=seed))


def tpe(space: Space, seed: int) -> Search:
    """Makes a search by the tree-structured Parzen estimator."""
    return sample(space, optuna.samplers.TPESampler(seed=seed))
