"""The command that studies distillation settings, from end to end."""

import dataclasses
import json
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optuna
import pytest
from flax import nnx

from _tiny_task import tiny
from kdlab.cli import distill as command
from kdlab.cli.main import main
from kdlab.models import weights
from kdlab.study import tasks
from kdlab.study.lab import Lab
from kdlab.study.objective import Knobs, make_update
from kdlab.study.results import recipe
from kdlab.study.teacher import select
from kdlab.study.training import Trainer
from kdlab.study.trials.space import RECOMMENDED, canonicalize

pytestmark = pytest.mark.usefixtures("standard")

GRID = ["--alpha", "0.5", "0.9", "--tau-teacher", "1", "--tau-student", "1"]
BALANCERS = ["--balancers", "fixed", "dto_kd"]


@pytest.fixture
def tiny_task(monkeypatch):
    monkeypatch.setattr(tasks, "load", lambda name, **options: tiny(name))


def study(folder, *arguments, monkeypatch):
    command = ["kdlab", "study", "--task", "tiny", "--runs", str(folder), *GRID]
    monkeypatch.setattr(sys, "argv", [*command, *BALANCERS, *arguments])
    return main()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    return Lab(tiny(), folder, 2, lambda done, total: None), folder


def test_a_study_writes_its_tables_figures_and_best_setting(
    tiny_task, tmp_path, monkeypatch, capsys
):
    assert study(tmp_path, "--seeds", "2", monkeypatch=monkeypatch) == 0
    folder = tmp_path / "study" / "tiny"
    written = (folder / "report.md").read_text()
    for heading in ("Cost of", "Main effect", "Searches against", "Balancers at"):
        assert f"### {heading}" in written
    assert "8 of 8 distinct trainings" in written
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "main_effects.png",
        "parallel.png",
        "alpha.png",
    }
    assert json.loads((folder / "setting.json").read_text())["balancer"] == "fixed"
    # The same command trains nothing, and a dashboard sees all trials.
    before = optuna.load_study(
        study_name="tiny", storage=f"sqlite:///{folder / 'study.db'}"
    ).trials
    assert study(tmp_path, "--seeds", "2", monkeypatch=monkeypatch) == 0
    after = optuna.load_study(
        study_name="tiny", storage=f"sqlite:///{folder / 'study.db'}"
    ).trials
    assert len(before) == len(after)
    assert {trial.state for trial in after} == {optuna.trial.TrialState.COMPLETE}
    # Several tasks are compared in one table; nothing is trained again.
    assert (
        study(
            tmp_path, "--seeds", "2", "--task", "tiny", "tiny", monkeypatch=monkeypatch
        )
        == 0
    )
    table = (tmp_path / "study" / "pairs.md").read_text()
    assert table.count("| tiny |") == 2
    assert "Tuned minus recommended" in table and "dto_kd, no search" in table
    # A different number of seeds would make different trials.
    assert study(tmp_path, "--seeds", "3", monkeypatch=monkeypatch) == 2
    assert "seeds was 2, is 3" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--distance", "l1"], "choose ce, kl, mse"),
        (["--tau-student", "free"], "positive number or 'tied'"),
        (["--trials", "0"], "at least 1"),
        (["--task", "language"], "did you mean 'languages'"),
        (["--task", "glue/sst2"], "no --data-dir is given"),
        (["--task", "glue/ax"], "choose glue/mnli"),
        (["--task", "movies"], "pip download --no-deps --no-binary :all: vaderSent"),
        (["--task", "movies", "--student", "64"], "expected DEPTHxWIDTH"),
        (["--task", "mnist5k", "--student", "2x64"], "has networks of its own"),
    ],
)
def test_errors_name_what_is_right(arguments, message, tmp_path, monkeypatch, capsys):
    command = ["kdlab", "study", "--runs", str(tmp_path), *arguments]
    monkeypatch.setattr(sys, "argv", command)
    try:
        code = main()
    except SystemExit as stop:  # wrong values end in the parser
        code = stop.code
    printed = capsys.readouterr()
    assert code == 2
    assert message in " ".join((printed.out + printed.err).split())
    assert not list(tmp_path.iterdir())


def test_the_teacher_is_chosen_by_score_and_by_loss():
    history = [
        {"score": 0.70, "loss": 0.9},
        {"score": 0.80, "loss": 0.6},  # the lowest loss
        {"score": 0.85, "loss": 0.7},
        {"score": 0.90, "loss": 1.1},  # the highest score
        {"score": 0.90, "loss": 1.2},  # as high, but later
        {"score": 0.88, "loss": 0.6},
    ]
    assert select(history) == {"t_hs": 3, "t_ll": 1}


def test_both_checkpoints_of_the_teacher_are_kept(lab):
    made, folder = lab
    record = json.loads((folder / "teacher" / "history.json").read_text())
    chosen = select(record["history"])
    task = tiny()
    with np.load(folder / "teacher" / "logits.npz") as logits:
        for name, position in chosen.items():
            model = task.teacher(nnx.Rngs(1))
            weights.load_orbax(folder / "teacher" / name, model)
            np.testing.assert_allclose(
                model(jnp.asarray(task.train.inputs)).logits, logits[name], rtol=1e-4
            )
            hits = np.argmax(model(jnp.asarray(task.validation.inputs)).logits, -1)
            score = np.mean(hits == task.validation.labels)
            assert score == pytest.approx(record["history"][position]["score"])
    del made


def test_settings_share_one_program_and_seeds_differ(lab):
    made, _ = lab
    results = [
        made.train(canonicalize(RECOMMENDED | change))
        for change in ({}, {"alpha": 0.5}, {"tau_teacher": 4.0}, {"distance": "mse"})
    ]
    assert made._trainers["fixed"]._epoch.compiled._cache_size() == 1
    assert len({tuple(result["loss_by_seed"]) for result in results}) == 4
    assert len(set(results[0]["loss_by_seed"])) == 2
    again = made.train(canonicalize(RECOMMENDED))
    assert again == results[0]


def test_the_test_part_is_judged_with_other_seeds(lab, monkeypatch):
    made, folder = lab
    first = made.test(RECOMMENDED)
    assert len(first) == 2
    monkeypatch.setattr(made, "_students", None)  # not trained again
    assert made.test(RECOMMENDED) == first
    assert len(json.loads((folder / "test.json").read_text())) == 1


@pytest.mark.parametrize("balancer", ["dynamic_lambda", "min_norm", "dto_kd", "dot"])
def test_every_balancer_learns(balancer):
    task = tiny()
    training = dataclasses.replace(task.student_training, epochs=20)
    trainer = Trainer(task, task.student, training, task.lesson, balancer=balancer)
    teacher = 5 * jax.nn.one_hot(task.train.labels, 10)
    setting = canonicalize(RECOMMENDED | {"balancer": balancer})
    *_, params = trainer.epochs(setting, teacher, [0])
    hits = np.argmax(trainer.logits(params, task.train.inputs)[0], -1)
    assert np.mean(hits == task.train.labels) > 0.5


def test_min_norm_balances_without_alpha():
    training = dataclasses.replace(
        tiny().student_training, optimizer="sgd", learning_rate=0.1, weight_decay=0.0
    )
    batch = {
        "inputs": jnp.eye(3),
        "labels": jnp.arange(3),
        "teacher": jnp.array([[2.0, 1, 0], [0, 2, 1], [0, 1, 2]]),
    }

    def updated(balancer, alpha):
        knobs = Knobs.of(RECOMMENDED | {"alpha": alpha})
        update = make_update(
            lambda w, batch: batch["inputs"] @ w, balancer, knobs, training, 10
        )
        params = jnp.zeros((3, 3))
        return jax.jit(update.apply)(params, update.init(params), batch)[0]

    np.testing.assert_array_equal(updated("min_norm", 0.1), updated("min_norm", 0.9))
    assert not np.allclose(updated("fixed", 0.1), updated("fixed", 0.9))


def best_of_a_study(folder):
    """Writes the recipe file of the image task, with a teacher beside it."""
    task = tasks.load("mnist5k")
    weights.save_orbax(folder / "teacher" / "t_ll", task.teacher(nnx.Rngs(0)))
    setting = RECOMMENDED | {"tau_teacher": 4.0, "balancer": "dto_kd"}
    return recipe.write(task, setting, folder)


def test_the_best_setting_of_the_image_task_is_a_recipe(tmp_path):
    path = best_of_a_study(tmp_path)
    ((_, config),) = command.parse(["--recipe", str(path), "--seeds", "1"], "distill")
    assert (config.distillation.loss, config.distillation.temperature) == (
        "soft_ce",
        4.0,
    )
    assert config.distillation.student_temperature == 1.0
    assert config.methods == ("dto_kd_shared",)
    assert config.networks.teacher_weights == tmp_path / "teacher" / "t_ll"
    assert (config.data.labels, config.data.noise, config.seeds) == (400, 0.4, 1)


@pytest.mark.slow
def test_the_recipe_trains(tmp_path, monkeypatch):
    path = best_of_a_study(tmp_path)
    options = ["--epochs", "1", "--seeds", "1", "--timing-rounds", "0"]
    arguments = [
        "kdlab",
        "distill",
        "--recipe",
        str(path),
        "--runs",
        str(tmp_path),
        *options,
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    assert main() == 0
    assert (tmp_path / "study-mnist5k" / "table.md").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"alhpa": 0.5}', "did you mean 'alpha'"),
        ('{"alpha": "much"}', "--alpha must be a number or None, got 'much'"),
        ('{"optimizer": "lion"}', "--optimizer must be 'sgd' or 'adamw', got 'lion'"),
        ('{"epochs": 2.5}', "--epochs must be a whole number, got 2.5"),
        ('{"methods": "kd"}', "--methods must be a list, got 'kd'"),
        ('{"epochs": 0}', r"recipe\.json: --epochs must be at least 1"),
        ("[1]", "must hold one object, got list"),
        ("alpha = 0.5", "is not JSON"),
    ],
)
def test_a_wrong_recipe_file_is_explained(content, message, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        list(command.parse(["--recipe", str(path)], "distill"))


PROGRAM = """
import sys
from kdlab.cli.main import main
from kdlab.study import lab, tasks
from _tiny_task import tiny
tasks.load = lambda name, **options: tiny(name)
train = lab.Lab.train
def reported(self, setting):
    result = train(self, setting)
    print("trained", flush=True)
    return result
lab.Lab.train = reported
sys.exit(main())
"""


@pytest.mark.slow
def test_a_study_survives_a_kill(tmp_path, tiny_task, monkeypatch):
    arguments = ["study", "--task", "tiny", "--runs", str(tmp_path), *GRID, *BALANCERS]
    victim = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    seen = 0
    while seen < 3:
        seen += "trained" in victim.stdout.readline()
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    url = f"sqlite:///{tmp_path / 'study' / 'tiny' / 'study.db'}"
    states = optuna.trial.TrialState
    kept = optuna.load_study(study_name="tiny", storage=url).get_trials(
        states=(states.COMPLETE,)
    )
    assert len(kept) >= 2
    assert study(tmp_path, monkeypatch=monkeypatch) == 0
    trials = optuna.load_study(study_name="tiny", storage=url).trials
    done = [trial for trial in trials if trial.state == states.COMPLETE]
    assert [trial.number for trial in kept] == [t.number for t in done[: len(kept)]]
    assert len({tuple(sorted(t.params.items())) for t in done}) == len(done)
    assert all(trial.state in (states.COMPLETE, states.FAIL) for trial in trials)
