"""Regret is counted as its page says."""

from pathlib import Path

import numpy as np
import pytest

from kdlab.regret import page
from kdlab.regret.analysis import SEARCHED, SEARCHES, Table
from kdlab.regret.situation import SITUATIONS
from kdlab.regret.store import Store
from kdlab.regret.training import Score

ARMS = ("fixed 0.1", "fixed 0.9", "dto_kd")


def score(accuracy, validation=50.0, loss=1.0):
    return Score(accuracy, validation, loss)


def make_scores():
    return {
        ("one", "fixed 0.1"): [score(90, 80), score(90, 70, 0.5)],
        ("one", "fixed 0.9"): [score(80, 70), score(70, 70, 0.9)],
        ("one", "dto_kd"): [score(89), score(88)],
        ("two", "fixed 0.1"): [score(60, 10), score(60, 10)],
        ("two", "fixed 0.9"): [score(70, 20), score(72, 5)],
        ("two", "dto_kd"): [score(73), score(73)],
    }


def make_table():
    return Table(make_scores(), ARMS)


def test_the_search_keeps_what_the_validation_set_prefers():
    table = make_table()
    np.testing.assert_array_equal(table.accuracy("one", SEARCHED), [90, 90])
    np.testing.assert_array_equal(table.accuracy("two", SEARCHED), [70, 60])


def test_a_diverged_run_loses_a_tie():
    scores = make_scores()
    scores["one", "fixed 0.1"][0] = score(10, 70, float("nan"))
    assert Table(scores, ARMS).accuracy("one", SEARCHED)[0] == 80


def test_regret_is_the_accuracy_lost():
    table = make_table()
    found = {regret.method: regret for regret in table.regrets()}
    method = found["dto_kd"]
    np.testing.assert_allclose(method.against_search, [1.5, -8.0])
    np.testing.assert_allclose(method.against_best, [1.5, -2.0])
    # By seed: ((90 - 89) + (70 - 73)) / 2 and ((90 - 88) + (60 - 73)) / 2.
    np.testing.assert_allclose(method.spread, np.std([-1, -5.5], ddof=1))
    assert method.worst(table.situations) == "one"
    assert (method.trainings, found[SEARCHED].trainings) == (1, 2)
    np.testing.assert_array_equal(found[SEARCHED].against_search, 0)


def test_the_best_fixed_weight_is_that_of_hindsight():
    assert make_table().best_fixed("two") == ("fixed 0.9", 71)


def test_incomplete_situations_are_left_out():
    scores = make_scores()
    del scores["one", "dto_kd"]
    assert Table(scores, ARMS).situations == ["two"]
    with pytest.raises(ValueError, match="no situation is complete"):
        Table({}, ARMS)


def test_all_searches_are_over_arms_that_exist():
    from kdlab.regret.arms import ARMS as ALL

    assert {arm for tried in SEARCHES.values() for arm in tried} <= set(ALL)


def test_a_page_without_markers_is_left_alone(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("# Page\n")
    with pytest.raises(ValueError, match="to write between"):
        page.write_page(path, make_table())
    assert path.read_text() == "# Page\n"


def test_the_page_shows_the_scores_beside_it():
    docs = Path(__file__).parents[4] / "docs"
    table = Table(Store(docs / "regret.jsonl").read())
    text = (docs / "regret.md").read_text(encoding="utf-8")
    shown = text.split(page.BEGIN)[1].split(page.END)[0]
    assert shown == "\n" + page.make_markdown(table)
    assert len(table.situations) == len(SITUATIONS) and table.seeds == 5
