"""Every arm trains, and the probe heads find out which of the losses is right."""

import dataclasses
import json

import numpy as np
import pytest
from rich.console import Console

from kdlab.regret import demo, tasks
from kdlab.regret.arms import ARMS, PROGRAMS
from kdlab.regret.runner import train_missing
from kdlab.regret.situation import SITUATIONS, Situation
from kdlab.regret.store import Store
from kdlab.regret.teachers import Teacher
from kdlab.regret.training import Laboratory, Score, draw
from kdlab.study.task import Part, make_full_lesson

pytestmark = pytest.mark.usefixtures("standard")

NOISY = Situation("noisy", noise=0.9, labels=200, epochs=8)


class SmallLaboratory(Laboratory):
    """Digits of which the teacher knows the labels of 319."""

    def task(self, name):
        if name not in self._tasks:
            task = tasks.load(name, None)
            few = Part(task.train.inputs[::11], task.train.labels[::11])
            test = Part(task.test.inputs[::5], task.test.labels[::5])
            self._tasks[name] = dataclasses.replace(
                task, train=few, test=test, lesson=make_full_lesson(few)
            )
        return self._tasks[name]

    def teacher(self, situation):
        logits = 8 * np.eye(10, dtype=np.float32)[self.task("digits").train.labels]
        return Teacher(logits, logits, 1.0)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    return SmallLaboratory(tmp_path_factory.mktemp("laboratory"), None)


def test_every_program_has_an_arm():
    assert {arm.program for arm in ARMS.values()} == set(PROGRAMS)


FEW = ("fixed 0.5", "dto_kd_shared", "weight_search")
SLOW = [
    pytest.param(name, marks=() if name in FEW else pytest.mark.slow)
    for name in (*PROGRAMS, "fixed 0.5", "dynamic_lambda from 0.9")
    if name in ARMS
]


@pytest.mark.parametrize("name", SLOW)
def test_an_arm_learns_from_the_right_teacher(name, laboratory):
    situation = NOISY._replace(noise=0.0)
    score = laboratory.train(situation, ARMS[name], 0)
    assert score.accuracy > 40  # of ten classes
    assert 0 <= score.validation <= 100 and np.isfinite(score.validation_loss)


def test_the_search_finds_the_right_targets(laboratory):
    """With nine of ten labels redrawn, labels alone are worth little."""
    labels = laboratory.train(NOISY, ARMS["fixed 0"], 0).accuracy
    searched = laboratory.train(NOISY, ARMS["weight_search"], 0).accuracy
    taught = laboratory.train(NOISY, ARMS["fixed 1"], 0).accuracy
    assert searched > labels + 0.7 * (taught - labels) and taught > labels + 15


@pytest.mark.parametrize("loss", ["mse", "features"])
def test_other_losses_train(loss, laboratory):
    situation = NOISY._replace(noise=0.0, loss=loss, epochs=2)
    assert laboratory.train(situation, ARMS["fixed 0.5"], 0).accuracy > 20


def test_training_is_repeatable(laboratory):
    arm = ARMS["reference_cosine"]
    first, again = (laboratory.train(NOISY, arm, 3) for _ in range(2))
    assert first == again


def test_seeds_draw_labels_and_validation_sets_anew(laboratory):
    task = laboratory.task("digits")
    one, two = (draw(task, NOISY, seed) for seed in (0, 1))
    assert not np.array_equal(one.validation.labels, two.validation.labels)
    assert len(one.rows) == 200 and len(one.validation.labels) == 100
    wrong = np.mean(one.labels[one.rows] != task.train.labels[one.rows])
    assert 0.7 < wrong < 0.9  # of those redrawn a tenth is right by chance


def test_only_what_is_missing_is_trained(tmp_path, laboratory, monkeypatch):
    monkeypatch.setattr("kdlab.regret.runner.Laboratory", lambda *_: laboratory)
    store = Store(tmp_path / "results.jsonl")
    situations, console = [SITUATIONS["good teacher"]], Console()
    seen = []

    def train(situation, arm, seed):
        seen.append(seed)
        return SmallLaboratory.train(laboratory, NOISY, arm, seed)

    monkeypatch.setattr(laboratory, "train", train)
    for seeds in (1, 2, 2):
        train_missing(store, situations, ["fixed 0.5"], range(seeds), None, console)
    assert seen == [0, 1]
    lines = [json.loads(line) for line in store.path.read_text().splitlines()]
    assert [len(line["accuracy"]) for line in lines] == [1, 2]


def test_the_demo_prints_and_draws(tmp_path, laboratory, monkeypatch, capsys):
    monkeypatch.setattr("kdlab.regret.runner.Laboratory", lambda *_: laboratory)

    def train(situation, arm, seed):
        del seed
        right = arm.weight if "good" in situation.name else 1 - arm.weight
        return Score(80 + 10 * right, 50, 1)

    monkeypatch.setattr(laboratory, "train", train)
    demo.run(demo.DemoConfig(runs=tmp_path), Console(width=200))
    printed = capsys.readouterr().out
    assert "worst" in printed and "weight_search" in printed
    table = (tmp_path / "demo" / "demo.md").read_text()
    row = next(line for line in table.splitlines() if line.startswith("| fixed 0.1 |"))
    assert row.split(" | ")[1:] == ["81.0 ± 0.0"] * 2 + ["89.0 ± 0.0"] * 2 + ["8.0 |"]
    assert (tmp_path / "demo" / "demo.png").stat().st_size > 1000
