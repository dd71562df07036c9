"""Compares settings over several pairs of a task and a student."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kdlab.study.results.analysis import Spread, find_worst
from kdlab.study.results.report import Results, describe
from kdlab.study.results.sheet import Sheet
from kdlab.study.trials.space import (
    RECOMMENDED,
    Setting,
    deduplicate,
    key,
    list_settings,
)

LABELS_ONLY = RECOMMENDED | {"alpha": 0.0}


class Pair(NamedTuple):
    """The study of one task and one student.

    Attributes:
        task: Name of the task.
        student: Size of the student.
        results: Its results.
    """

    task: str
    student: str
    results: Results


def choose_one(pairs: Sequence[Pair]) -> Setting:
    """Returns the setting with a fixed alpha that is best over all pairs.

    It has the highest mean validation score among those whose training is finished for
    every pair, which the recommended setting is.
    """
    grid = deduplicate(
        [point for pair in pairs for point in list_settings(pair.results.space)]
    )
    common = [
        point
        for point in [RECOMMENDED, *grid]
        if all(key(point) in pair.results.scores for pair in pairs)
    ]

    def mean(point: Setting) -> float:
        return float(np.mean([np.mean(p.results.scores[key(point)]) for p in pairs]))

    return max(common, key=mean)


def tabulate_pairs(pairs: Sequence[Pair]) -> Sheet:
    """Tabulates what bad, recommended, common and searched settings give on a test."""
    one = choose_one(pairs)
    others = [name for name in pairs[0].results.spaces if name != "fixed"]
    rows, drops, costs = [], {"recommended": [], "one": []}, []
    for task, student, results in pairs:
        grid = deduplicate(list_settings(results.space))
        worst = find_worst(grid, results.scores)
        settings = [LABELS_ONLY, worst, RECOMMENDED, one, results.chosen]
        found = [None if s is None else results.test(s) for s in settings]
        for name in others:
            start = RECOMMENDED | {"balancer": name}
            best = results.found[name].setting if name in results.found else None
            found += [results.test(start), None if best is None else results.test(best)]
        trials = len(next(iter(results.found.values())).trials)
        cells = ["" if row is None else Spread.of(row).text() for row in found]
        rows.append((task, student, *cells[:5], str(trials), *cells[5:]))
        tuned = np.mean(results.test(results.chosen))
        drops["recommended"].append(tuned - np.mean(results.test(RECOMMENDED)))
        drops["one"].append(tuned - np.mean(results.test(one)))
        if found[1] is not None:
            costs.append(tuned - np.mean(found[1]))
    balancers = [
        title
        for name in others
        for title in (f"{name}, no search", f"{name}, searched")
    ]
    return Sheet(
        "Settings over all pairs of a task and a student",
        (
            *("task", "student", "labels only", "worst tried", "recommended"),
            *("one for all", "tuned", "trials", *balancers),
        ),
        rows,
        f"Test score (%), mean ± standard deviation over seeds. Tuned minus worst: "
        f"{_describe(costs)}. Tuned minus recommended ({describe(RECOMMENDED)}): "
        f"{_describe(drops['recommended'])}. One for all ({describe(one)}) has the "
        "highest mean validation score among the settings that every pair has tried; "
        f"tuned minus one for all: {_describe(drops['one'])}.",
    )


def _describe(differences: Sequence[float]) -> str:
    values = 100 * np.asarray(differences)
    return f"{values.mean():.1f} points on average, {values.max():.1f} at most"
