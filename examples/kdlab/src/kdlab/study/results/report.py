"""Makes the tables of a study."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from kdlab.study.results import analysis
from kdlab.study.results.analysis import Scores, Spread
from kdlab.study.results.sheet import Sheet
from kdlab.study.trials import search
from kdlab.study.trials.search import Found
from kdlab.study.trials.space import (
    RECOMMENDED,
    Setting,
    Space,
    canonicalize,
    deduplicate,
    key,
    list_settings,
)

REPEATS = 20
SMALL_BUDGET = 0.3  # fraction of the grid at which greedy is evaluated as well
Test = Callable[[Setting], Sequence[float]]


def describe(setting: Setting) -> str:
    """Describes a setting briefly.

    >>> describe(RECOMMENDED | {"tau_teacher": 4.0})
    'alpha 0.9, ce, tau_t 4, tau_s 1, t_ll'
    """
    known = canonicalize(setting)
    if known.get("alpha") == 0 and len(known) == 2:
        return "labels only (alpha 0)"
    parts = [f"alpha {known['alpha']:g}"] if "alpha" in known else []
    parts += [known["distance"], f"tau_t {known['tau_teacher']:g}"]
    parts += [f"tau_s {known['tau_student']:g}", known["teacher"]]
    return ", ".join(parts)


@dataclasses.dataclass(frozen=True)
class Results:
    """The results from which the tables are made.

    Attributes:
        spaces: Grid of each balancer, that of ``fixed`` first.
        scores: Validation accuracies by seed of every finished training.
        found: Result of each search, that of the study first; searches with other
            balancers have the names of these.
        test: Returns test accuracies of a setting, with other seeds.
        margin: Margin in points of accuracy.
    """

    spaces: Mapping[str, Space]
    scores: Scores
    found: Mapping[str, Found]
    test: Test
    margin: float

    @property
    def space(self) -> Space:
        """The grid of the fixed alpha."""
        return self.spaces["fixed"]

    @property
    def chosen(self) -> Setting:
        """Setting that the search of the study chose."""
        setting = next(iter(self.found.values())).setting
        return RECOMMENDED if setting is None else setting

    def validation(self, setting: Setting) -> str:
        """Formats the validation accuracy of a setting."""
        return Spread.of(self.scores[key(setting)]).text()

    def tested(self, setting: Setting) -> str:
        """Formats the test accuracy of a setting."""
        return Spread.of(self.test(setting)).text()


def make_sheets(results: Results) -> list[Sheet]:
    """Makes all tables that the finished trainings allow."""
    out = [tabulate_costs(results), tabulate_knobs(results)]
    done, size = analysis.count_finished(results.space, results.scores)
    if done == size:
        out.append(tabulate_searches(results))
    if len(results.spaces) > 1:
        out.append(tabulate_balancers(results))
    return out


def tabulate_costs(results: Results) -> Sheet:
    """Tabulates the best, worst and recommended settings."""
    grid, scores = deduplicate(list_settings(results.space)), results.scores
    family = analysis.find_best(analysis.recommended_family(results.space), scores)
    rows = {
        "best": analysis.find_best(grid, scores),
        "chosen by the search": results.chosen,
        "recommended": RECOMMENDED,
        "recommended, alpha and tau_t searched": family,
        "labels only": RECOMMENDED | {"alpha": 0.0},
        "worst": analysis.find_worst(grid, scores),
    }
    done, size = analysis.count_finished(results.space, scores)
    gap = np.subtract(results.test(results.chosen), results.test(RECOMMENDED))
    spread, margin = Spread.of(gap), results.margin
    verdict = "within" if 100 * spread.mean <= margin else "not within"
    return Sheet(
        "Cost of a bad choice",
        ("", "setting", "validation (%)", "test (%)"),
        [
            (
                name,
                describe(setting),
                results.validation(setting),
                results.tested(setting),
            )
            for name, setting in rows.items()
            if setting is not None and key(setting) in scores
        ],
        f"{done} of {size} distinct trainings of the grid. On the test part the "
        f"chosen setting is {spread.text(digits=2)} points above the recommended one: "
        f"{verdict} the margin of {margin:g}.",
    )


def tabulate_knobs(results: Results) -> Sheet:
    """Tabulates the main effect of each knob."""
    effects = analysis.main_effects(results.space, results.scores)
    rows: list[tuple[str, ...]] = []
    for knob, effect in effects.items():
        high, low, spread = analysis.cost_of_choice(effect)
        means = ", ".join(f"{v}: {100 * np.mean(effect[v]):.1f}" for v in effect)
        rows.append((knob, means, str(high), str(low), spread.text()))
    done, size = analysis.count_finished(results.space, results.scores)
    return Sheet(
        "Main effect of each knob",
        ("knob", "mean accuracy by value (%)", "best", "worst", "difference (points)"),
        rows,
        f"Validation accuracy, averaged over the other knobs of {done} of {size} "
        "trainings; difference: mean ± standard deviation over seeds.",
    )


def tabulate_searches(results: Results) -> Sheet:
    """Tabulates how close the searches come to the grid, and at what cost."""
    space, scores = results.space, results.scores
    size = len(deduplicate(list_settings(space)))
    rows = []
    for name, found in results.found.items():
        if name not in results.spaces:
            rows.append(_price(name, [found.score], len(found.trials), size, results))
    name, first = next(iter(results.found.items()))
    trials, small = len(first.trials), int(SMALL_BUDGET * size)
    if trials > small > 0:
        begun = max(list(first.trials.values())[:small])
        title = f"{name}, first {small} trials"
        rows.append(_price(title, [begun], small, size, results))
    for name, make in (("random", search.random), ("tpe", search.tpe)):
        replayed = analysis.replay(make, space, scores, trials=trials, repeats=REPEATS)
        title = f"{name}, {REPEATS} repetitions"
        rows.append(_price(title, replayed, trials, size, results))
    return Sheet(
        "Searches against the grid",
        (
            *("search", "chosen", "trials", "share of the grid (%)"),
            *("validation (%)", "share of the gain (%)"),
        ),
        rows,
        "Gain: 0 % for the worst setting of the grid, 100 % for the best. Repetitions "
        "look scores up in the grid; mean ± standard deviation.",
    )


def _price(
    name: str, scores: Sequence[float], trials: int, size: int, results: Results
) -> tuple[str, ...]:
    gains = [analysis.relative_gain(s, results.space, results.scores) for s in scores]
    found = results.found.get(name)
    setting = None if found is None else found.setting
    several = len(scores) > 1
    return (
        name,
        "" if setting is None else describe(setting),
        str(trials),
        f"{100 * trials / size:.0f}",
        Spread.of(scores).text() if several else f"{100 * scores[0]:.1f}",
        Spread.of(gains).text(digits=0) if several else f"{100 * gains[0]:.0f}",
    )


def tabulate_balancers(results: Results) -> Sheet:
    """Tabulates whether balancing removes the need to search alpha."""
    rows: list[tuple[str, ...]] = []
    for name, space in results.spaces.items():
        found = results.found.get(name) or next(iter(results.found.values()))
        start = RECOMMENDED | {"balancer": name}
        sweep = analysis.alpha_sweep(space, results.scores)
        if found.setting is None or not sweep or key(start) not in results.scores:
            continue
        means = {alpha: float(np.mean(row)) for alpha, row in sweep.items()}
        tuned = start | {"alpha": max(means, key=lambda alpha: means[alpha])}
        free = "alpha" in canonicalize(start)
        low, high = 100 * min(means.values()), 100 * max(means.values())
        rows.append(
            (
                name,
                results.tested(start),
                f"{low:.1f} to {high:.1f}" if free else "no alpha",
                f"{tuned['alpha']:g}" if free else "",
                results.tested(tuned),
                str(len(found.trials)),
                describe(found.setting),
                results.tested(found.setting),
            )
        )
    return Sheet(
        "Balancers at equal budget",
        (
            *("balancer", "no search: test (%)", "over alpha: validation (%)"),
            *("best alpha", "alpha searched: test (%)", "trials"),
            *("all searched", "test (%)"),
        ),
        rows,
        "No search: the recommended setting, alpha 0.9. Over alpha: worst and best, "
        "other knobs as recommended. All searched: the search of the study; for other "
        "balancers, a greedy search with at most as many trainings.",
    )


def write(folder: Path, caption: str, tables: Sequence[Sheet]) -> Path:
    """Writes the tables as Markdown."""
    path = folder / "report.md"
    path.write_text("\n".join([caption, "", *(sheet.markdown() for sheet in tables)]))
    return path
