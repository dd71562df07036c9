"""Trials are stored, shared, and not lost with the process that ran them."""

import signal
import subprocess
import sys

import numpy as np
import pytest
from optuna.trial import TrialState

from _tiny_task import tiny
from kdlab.study.teacher import teacher_logits
from kdlab.study.trials.search import BudgetSpent, grid, search
from kdlab.study.trials.space import RECOMMENDED, SPACE, deduplicate, key, list_settings
from kdlab.study.trials.store import Store

ALPHAS = [RECOMMENDED | {"alpha": alpha} for alpha in (0.5, 0.75, 1.0)]


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path, "test")
    yield opened
    opened.close()


def scored(calls):
    def train(setting):
        calls.append(setting["alpha"])
        return {"score": setting["alpha"], "by_seed": [1, 2]}

    return train


def test_equal_settings_are_trained_once(store, tmp_path):
    calls = []
    twice = [*ALPHAS, ALPHAS[0] | {"distance": "kl"}]
    assert store.scores(twice, scored(calls)) == [0.5, 0.75, 1.0, 0.5]
    assert store.scores(ALPHAS, scored(calls)) == [0.5, 0.75, 1.0]
    store.close()
    again = Store(tmp_path, "test")
    assert again.scores(ALPHAS, scored(calls)) == [0.5, 0.75, 1.0]
    assert calls == [0.5, 0.75, 1.0]
    assert again.results()[key(ALPHAS[0])]["by_seed"] == [1, 2]
    again.close()


def test_a_damaged_database_is_named(tmp_path):
    (tmp_path / "study.db").write_bytes(b"no database" * 500)
    with pytest.raises(ValueError, match=r"study\.db cannot be read: .*Move it away"):
        Store(tmp_path, "test")


def test_a_damaged_teacher_is_trained_again(tmp_path, caplog, standard):
    done = []
    folder = tmp_path / "teacher"

    def logits():
        return teacher_logits(tiny(), folder, lambda *progress: done.append(progress))

    before = logits()
    count = len(done)
    logits()
    assert len(done) == count
    (folder / "logits.npz").write_bytes(b"damaged")
    after = logits()
    assert len(done) == 2 * count
    assert f"{folder / 'logits.npz'} cannot be read" in caplog.text
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])


def test_a_budget_keeps_what_was_finished(store):
    calls = []
    with pytest.raises(BudgetSpent) as spent:
        store.scores(ALPHAS, scored(calls), may_start=lambda: len(calls) < 2)
    assert spent.value.scores == {key(ALPHAS[0]): 0.5, key(ALPHAS[1]): 0.75}


def test_a_failed_training_is_tried_again(store):
    def fails(setting):
        raise FloatingPointError

    with pytest.raises(FloatingPointError):
        store.scores(ALPHAS[:1], fails)
    assert store.scores(ALPHAS[:1], scored([])) == [0.5]


def test_two_processes_share_the_work(store, tmp_path):
    """A second store here stands for another process: it has its own lock."""
    other, calls = Store(tmp_path, "test"), []

    def first(setting):
        if not calls:
            assert other._claim(setting) is None  # being run here
            other.scores(ALPHAS[1:2], scored(calls))  # the other takes the next
        return {"score": setting["alpha"]}

    assert store.scores(ALPHAS, first) == [0.5, 0.75, 1.0]
    assert calls == [0.75]
    states = [trial.state for trial in store.study.trials]
    assert states == [TrialState.COMPLETE] * 3
    other.close()


PROGRAM = """
import sys, time
from pathlib import Path
from kdlab.study.trials.space import RECOMMENDED
from kdlab.study.trials.store import Store
def train(setting):
    if setting["alpha"] == 0.75:
        print("training", flush=True)
        time.sleep(600)
    return {"score": setting["alpha"]}
settings = [RECOMMENDED | {"alpha": alpha} for alpha in (0.5, 0.75, 1.0)]
Store(Path(sys.argv[1]), "test").scores(settings, train)
"""


def test_a_killed_process_loses_no_finished_trial(tmp_path):
    victim = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert victim.stdout.readline() == "training\n"
    # Another process does not take over its trial while it lives.
    store, calls = Store(tmp_path, "test"), []
    assert store._claim(ALPHAS[1]) is None
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    assert store.scores(ALPHAS, scored(calls)) == [0.5, 0.75, 1.0]
    assert calls == [0.75, 1.0]
    states = [trial.state for trial in store.study.trials]
    assert states.count(TrialState.FAIL) == 1
    assert states.count(TrialState.COMPLETE) == 3
    store.close()


def test_a_trial_left_in_the_queue_does_not_take_the_place_of_another(store):
    store.study.enqueue_trial({"alpha": 0.0, "balancer": "fixed"})
    assert store.scores(ALPHAS[:1], scored([])) == [0.5]


def test_a_search_goes_on_from_the_store(store):
    space = SPACE | {"tau_student": (1.0,), "tau_teacher": (1.0,)}
    calls = []

    def evaluate(settings):
        return store.scores(settings, scored(calls), may_start=lambda: len(calls) < 7)

    first = search(grid(space), evaluate)
    assert not first.complete
    assert len(first.trials) == 7
    rest = search(grid(space), lambda s: store.scores(s, scored(calls)))
    assert rest.complete
    assert len(calls) == len(rest.trials) == len(deduplicate(list_settings(space)))
