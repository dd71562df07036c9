"""Conclusions of a study about a known response surface."""

import numpy as np
import pytest

from kdlab.study.results import analysis, figures, report
from kdlab.study.trials import search
from kdlab.study.trials.search import greedy, grid
from kdlab.study.trials.space import RECOMMENDED, SPACE, canonicalize, deduplicate, key
from kdlab.study.trials.space import list_settings as all_points

NOISE = np.array([-0.01, 0.0, 0.01])
WORTH = {
    "alpha": {0.0: 0.0, 0.5: 0.02, 0.75: 0.04, 0.9: 0.05, 1.0: 0.01},
    "distance": {"ce": 0.03, "kl": 0.03, "mse": 0.0},
    "teacher": {"t_hs": 0.0, "t_ll": 0.02},
}
SPACES = {
    name: SPACE | {"balancer": (name,)}
    for name in ("fixed", "dto_kd", "dynamic_lambda")
}


def accuracy(setting):
    """Scores of three seeds, additive where the teacher has an effect."""
    known = canonicalize(setting)
    worth = sum(WORTH[knob][known[knob]] for knob in WORTH if knob in known)
    return 0.6 + worth + NOISE


def evaluate(settings):
    return [float(accuracy(setting).mean()) for setting in settings]


@pytest.fixture(scope="module")
def results():
    scores = {
        key(p): accuracy(p) for space in SPACES.values() for p in all_points(space)
    }
    found = {"greedy": search.search(greedy(SPACE, RECOMMENDED), evaluate)}
    for name in ("dto_kd", "dynamic_lambda"):
        start = RECOMMENDED | {"balancer": name}
        found[name] = search.search(greedy(SPACES[name], start), evaluate)
    found["grid"] = search.search(grid(SPACE), evaluate)
    return report.Results(SPACES, scores, found, accuracy, margin=0.5)


def test_main_effects_are_averages_over_the_other_knobs(results):
    effects = analysis.main_effects(SPACE, results.scores)
    distance = effects["distance"]
    # A fifth of the grid has alpha 0, where the distance has no effect.
    gap = distance["ce"] - distance["mse"]
    np.testing.assert_allclose(gap, 0.8 * 0.03)
    high, low, spread = analysis.cost_of_choice(effects["teacher"])
    assert (high, low) == ("t_ll", "t_hs")
    assert spread.mean == pytest.approx(0.8 * 0.02)
    assert spread.deviation == pytest.approx(0, abs=1e-12)
    assert "balancer" not in effects  # one value


def test_effects_of_an_unfinished_grid_leave_out_what_is_missing(results):
    some = {k: v for k, v in results.scores.items() if ("alpha", 0.5) in k}
    effects = analysis.main_effects(SPACE, some)
    assert list(effects["alpha"]) == [0.5]
    assert analysis.count_finished(SPACE, some) == (16, 65)


def test_the_gain_is_a_share_of_the_whole_range(results):
    lowest, highest = 0.6, 0.6 + 0.05 + 0.03 + 0.02
    assert analysis.relative_gain(highest, SPACE, results.scores) == pytest.approx(1)
    middle = (lowest + highest) / 2
    assert analysis.relative_gain(middle, SPACE, results.scores) == pytest.approx(0.5)


def test_replayed_searches_look_scores_up(results):
    found = analysis.replay(search.random, SPACE, results.scores, trials=65, repeats=2)
    np.testing.assert_allclose(found, 0.7)  # the whole grid
    few = analysis.replay(search.random, SPACE, results.scores, trials=3, repeats=5)
    assert np.mean(few) < 0.7


def test_the_tables_name_best_worst_and_recommended(results):
    sheets = {sheet.title: sheet for sheet in report.make_sheets(results)}
    rows = {row[0]: row for row in sheets["Cost of a bad choice"].rows}
    assert rows["best"][1] == report.describe(RECOMMENDED)
    assert rows["worst"][1] == "labels only (alpha 0)"
    assert rows["worst"][2] == "60.0 ± 1.0"
    assert "within the margin of 0.5" in sheets["Cost of a bad choice"].note
    prices = sheets["Searches against the grid"].rows
    assert [row[0].split(",")[0] for row in prices] == [
        "greedy",
        "grid",
        "random",
        "tpe",
    ]
    assert prices[0][5] == prices[1][5] == "100"
    assert float(prices[0][3]) < 30
    balancers = {row[0]: row for row in sheets["Balancers at equal budget"].rows}
    assert balancers["fixed"][2] == "60.0 to 70.0"
    assert balancers["dto_kd"][2] == "no alpha"
    assert "| dto_kd |" in sheets["Balancers at equal budget"].markdown()


def test_a_part_of_a_study_is_reported_too(results):
    known = {key(RECOMMENDED): accuracy(RECOMMENDED)}
    found = {"greedy": search.search(grid(SPACE), evaluate, trials=1)}
    part = report.Results(SPACES, known, found, accuracy, margin=0.5)
    titles = [sheet.title for sheet in report.make_sheets(part)]
    assert titles[:2] == ["Cost of a bad choice", "Main effect of each knob"]
    assert "Searches against the grid" not in titles


def test_figures_are_drawn(results, tmp_path):
    paths = list(figures.draw(results, tmp_path))
    assert [path.name for path in paths] == [
        "main_effects.png",
        "parallel.png",
        "alpha.png",
    ]
    assert all(path.stat().st_size > 10_000 for path in paths)
    assert len(deduplicate(all_points(SPACE))) == 65
