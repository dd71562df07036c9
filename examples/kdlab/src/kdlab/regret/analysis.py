"""Regret: points of accuracy that a method loses against a search of the weight."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from kdlab.regret.arms import ARMS, RATES, name_dot, name_fixed
from kdlab.regret.objective import GRID
from kdlab.regret.store import Scores
from kdlab.regret.training import Score

SEARCHED = "fixed, searched"
SEARCHES: dict[str, tuple[str, ...]] = {
    SEARCHED: tuple(name_fixed(weight) for weight in GRID),
    "fixed 0.5, rate searched": tuple(name_fixed(0.5, rate) for rate in RATES),
    "dot, rate searched": tuple(name_dot(rate) for rate in RATES),
}
"""Methods that train several arms and keep the best on the validation set, by name."""


class Regret(NamedTuple):
    """What a method costs, in points of accuracy.

    Attributes:
        method: Name of the method.
        trainings: Number of trainings.
        cost: Time of a step relative to that of a fixed weight.
        against_search: Loss against the searched fixed weight, ``[situations]``.
        against_best: Loss against the best fixed weight in hindsight, ``[situations]``.
        spread: Standard deviation over the seeds of the mean loss against the search.
    """

    method: str
    trainings: int
    cost: float
    against_search: np.ndarray
    against_best: np.ndarray
    spread: float

    def worst(self, situations: Sequence[str]) -> str:
        """Returns the situation that costs most against the search."""
        return situations[int(np.argmax(self.against_search))]


class Table:
    """The situations in which every arm was trained.

    Args:
        scores: All scores.
        arms: Names of the arms to compare.

    Attributes:
        situations: Names of the situations.
        methods: Names of the methods: searches over the arms, and the arms.
        seeds: Number of seeds.

    Raises:
        ValueError: If no situation is complete.
    """

    situations: list[str]
    methods: tuple[str, ...]
    seeds: int

    def __init__(self, scores: Scores, arms: Collection[str] = tuple(ARMS)):
        names = dict.fromkeys(name for name, _ in scores)
        self.situations = [
            name for name in names if all((name, arm) in scores for arm in arms)
        ]
        if not self.situations:
            raise ValueError("no situation is complete: run the command to its end")
        self._scores = scores
        self._searched = {
            name: [arm for arm in tried if arm in arms]
            for name, tried in SEARCHES.items()
        }
        searches = (name for name, tried in self._searched.items() if len(tried) > 1)
        self.methods = (*searches, *arms)
        self.seeds = min(len(scores[s, arm]) for s in self.situations for arm in arms)

    def accuracy(self, situation: str, method: str) -> np.ndarray:
        """Accuracy of a method, ``[seeds]``; of a search, that of the arm it keeps."""
        runs = [
            self._scores[situation, arm][: self.seeds] for arm in self._arms(method)
        ]
        kept = (max(column, key=_rank) for column in zip(*runs, strict=True))
        return np.array([score.accuracy for score in kept])

    def best_fixed(self, situation: str) -> tuple[str, float]:
        """The arm of a fixed weight with the highest mean accuracy, and that."""
        means = {
            arm: float(self.accuracy(situation, arm).mean())
            for arm in self._searched[SEARCHED]
        }
        best = max(means, key=means.__getitem__)
        return best, means[best]

    def regrets(self) -> list[Regret]:
        """Regrets of all methods, the least worst case against the search first."""
        found = [self._regret(method) for method in self.methods]
        return sorted(found, key=lambda regret: regret.against_search.max())

    def _arms(self, method: str) -> Sequence[str]:
        return self._searched.get(method, (method,))

    def _regret(self, method: str) -> Regret:
        def over(reference: Callable[[str], np.ndarray | float]) -> np.ndarray:
            return np.array(
                [reference(s) - self.accuracy(s, method) for s in self.situations]
            )

        search = over(lambda s: self.accuracy(s, SEARCHED))
        best = over(lambda s: self.best_fixed(s)[1])
        arms = self._arms(method)
        return Regret(
            method,
            len(arms),
            ARMS[arms[0]].cost,
            search.mean(axis=1),
            best.mean(axis=1),
            float(search.mean(axis=0).std(ddof=1)) if self.seeds > 1 else 0.0,
        )


def _rank(score: Score) -> tuple[float, float]:
    """Orders scores as a user would: by accuracy, then by cross-entropy."""
    loss = score.validation_loss
    return score.validation, -loss if np.isfinite(loss) else -np.inf
