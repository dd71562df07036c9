"""Scores survive a kill and are not mistaken for those of other definitions."""

import pytest

from kdlab.regret.store import Store
from kdlab.regret.training import Score

NAMES = "good teacher", "fixed 0.5"
SCORES = [Score(90.5, 88.0, 0.25), Score(91.0, 89.0, 0.5)]


def test_scores_come_back(tmp_path):
    store = Store(tmp_path / "new" / "results.jsonl")
    assert store.read() == {}
    store.append(*NAMES, SCORES[:1])
    store.append(*NAMES, SCORES)
    assert store.read() == {NAMES: SCORES}


def test_a_cut_last_line_is_made_again(tmp_path):
    store = Store(tmp_path / "results.jsonl")
    store.append(*NAMES, SCORES)
    whole = store.path.read_text()
    store.path.write_text(whole + whole[:30])
    assert store.read() == {NAMES: SCORES}
    store.append("weak teacher", "fixed 0.5", SCORES)
    assert store.read() == {NAMES: SCORES, ("weak teacher", "fixed 0.5"): SCORES}


def test_a_damaged_line_is_named(tmp_path):
    store = Store(tmp_path / "results.jsonl")
    store.path.write_text("damaged\n")
    with pytest.raises(ValueError, match="Remove the damaged line"):
        store.read()


def test_scores_of_other_definitions_do_not_count(tmp_path, monkeypatch):
    from kdlab.regret import store as module

    store = Store(tmp_path / "results.jsonl")
    store.append(*NAMES, SCORES)
    arm = module.ARMS["fixed 0.5"]._replace(weight=0.6)
    monkeypatch.setitem(module.ARMS, "fixed 0.5", arm)
    assert store.read() == {}
