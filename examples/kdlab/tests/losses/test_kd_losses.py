"""Distillation losses in the laboratory: every one trains, and they are compared."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

import kdopt
from kdlab.cli.main import main
from kdlab.data import load
from kdlab.experiment import loss_table
from kdlab.experiment import run as experiment
from kdlab.experiment.loss_table import LossesConfig
from kdlab.experiment.make import make_config
from kdlab.experiment.networks import make_model
from kdlab.experiment.students import Students, Teacher
from kdlab.losses.base import Batch, Setting, reached_params
from kdlab.losses.table import LOSSES, loss_weights
from kdlab.models import Outputs
from kdlab.models.network import Network
from kdlab.runs import table
from kdlab.settings.parts import Distillation
from kdlab.train.fit import fit
from kdlab.train.step import make_step
from kdopt import losses

pytestmark = pytest.mark.usefixtures("standard")

SETTINGS = {
    "dataset": "digits",
    "augment": "none",
    "teacher": "mlp",
    "student": "mlp",
    "labels": 20,
    "batch_size": 20,
    "epochs": 2,
    "timing_rounds": 0,
}


def untrained(name):
    """Makes up a teacher's outputs: what it teaches does not matter here."""
    dataset = load("digits")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return Teacher(Network.of(make_model(name, dataset, nnx.Rngs(7))), dataset)


@pytest.fixture(scope="module")
def teacher():
    return untrained("mlp")


@pytest.fixture(scope="module")
def cnn_teacher():
    return untrained("cnn_student")


def train(teacher, loss, method, steps=2, **settings):
    """Returns states before and after some steps on one batch, and the last metrics."""
    students = Students(make_config(loss=loss, **(SETTINGS | settings)), teacher)
    plan = students.plan(method)
    step, data = make_step(students.problem, plan), students.data(0)
    batch = jnp.arange(20), jnp.ones(20)
    state, metrics = students.state(plan, 0), {}
    before = jax.tree.map(np.array, state.params)
    for _ in range(steps):
        state, metrics = step(state, data, teacher.network, *batch)
    return before, state, metrics


def moved(before, after):
    """Returns the names of the leaves that changed."""
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    )
    return {jax.tree_util.keystr(p) for (p, x), y in pairs if np.any(x != y)}


METHODS = ("kd", "dot", "dto_kd", "dto_kd_shared")


def method_of(index, loss):
    """Each method in turn, but DOT for two losses alone."""
    method = METHODS[index % 4]
    return "kd" if method == "dot" and len(LOSSES[loss].names) > 1 else method


FAST = ("ctkd", "fitnet", "nst", "nd")


# One method each, so that every way to the gradient meets several losses.
@pytest.mark.parametrize(
    ("loss", "method"),
    [
        pytest.param(
            loss, method_of(i, loss), marks=() if loss in FAST else pytest.mark.slow
        )
        for i, loss in enumerate(LOSSES)
    ],
)
def test_loss_trains(loss, method, teacher, cnn_teacher):
    """The student moves, and so do all layers beside it; nothing breaks."""
    # Maps of one position all look at the same place.
    if loss in ("at", "kdsvd"):
        teacher, network = cnn_teacher, "cnn_student"
    elif loss in ("manifold", "masked_kd"):
        teacher, network = untrained("vit_tiny32"), "vit_tiny32"
    else:
        network = "mlp"
    settings = {"student": network, "weight_decay": 0.0, "learning_rate": 1e-3}
    before, state, metrics = train(teacher, loss, method, **settings)
    assert np.isfinite([float(x) for x in metrics.values()]).all()
    assert metrics["loss/distill"] > 0
    names = moved(before, state.params)
    assert any("['network']" in name for name in names)
    adapters = {
        jax.tree_util.keystr(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(before)
        if "['adapter']" in jax.tree_util.keystr(path)
    }
    # Batch normalisation cancels a bias before it; a reversed gradient begins at 0.
    assert len(adapters - names) <= 1, adapters - names


@pytest.mark.parametrize("loss", ["vid", "crd"])
def test_shared_and_exact_see_the_same(loss, teacher):
    """Equal losses and equal memories after a step, and both train the adapter."""
    steps = {
        method: train(teacher, loss, method, steps=1, weight_decay=0.0)
        for method in ("dto_kd", "dto_kd_shared")
    }
    exact, shared = (metrics for _, _, metrics in steps.values())
    for name in ("loss/task", "loss/distill"):
        np.testing.assert_allclose(exact[name], shared[name], rtol=1e-6)
    for method, (before, state, metrics) in steps.items():
        total = metrics["weight/task"] + metrics["weight/distill"]
        np.testing.assert_allclose(total, 1, rtol=1e-5, err_msg=method)
        names = moved(before, state.params)
        assert any("['adapter']" in name for name in names)
        assert any("['network']" in name for name in names)
    rests = [state.rest for _, state, _ in steps.values()]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), *rests)


def test_memory_moves_once_a_step(teacher):
    """The memory after a step is that of `crd` called by hand on the old one."""
    students = Students(make_config(loss="crd", **SETTINGS), teacher)
    plan = students.plan("kd")
    state, data = students.state(plan, 0), students.data(0)
    memory = jax.tree.map(jnp.copy, state.rest["adapter"]["memory"].get_value())
    np.testing.assert_array_equal(memory.labels, data.labels)

    @jax.jit
    def by_hand(state, data):
        graphdef = students.problem.graphdef
        pupil = nnx.merge(graphdef, state.params, state.rest, copy=True)
        batch = students.problem.load(
            state, data, teacher.network, jnp.arange(20), jnp.ones(20)
        )
        ours = pupil.network(batch.images).pooled
        embeddings = pupil.adapter.embeddings(ours, batch.teacher.pooled)
        return losses.crd(
            *embeddings, jnp.arange(20), memory, batch.key, num_negatives=20
        )

    _, expected = by_hand(state, data)
    step = make_step(students.problem, plan)
    state, _ = step(state, data, teacher.network, jnp.arange(20), jnp.ones(20))
    found = state.rest["adapter"]["memory"].get_value()
    assert np.isfinite(found.log_z).all()
    for name, x, y in zip(found._fields, found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5, err_msg=name)


def weights(**settings):
    return loss_weights(Distillation(**settings))


def test_fixed_weights_are_those_of_the_recipe_unless_given():
    assert weights() == (0.1, 0.9)
    assert weights(loss="at") == (1, 1)
    assert LOSSES["at"].scale == 1000
    assert weights(loss="at", alpha=0.25) == (0.75, 0.25)


@pytest.mark.parametrize("loss", ["kd", "ctkd", "sp", "vid", "crd"])
def test_reach_is_that_of_the_traced_program(loss, cnn_teacher):
    settings = SETTINGS | {"student": "cnn_student"}
    students = Students(make_config(loss=loss, **settings), cnn_teacher)
    problem, state = students.problem, students.state(students.plan("kd"), 0)
    data, order = (
        problem.layout.replicate(students.data(0)),
        (jnp.arange(20), jnp.ones(20)),
    )
    found = []

    def trace(state):
        batch = problem.load(state, data, cnn_teacher.network, *order)
        traced = kdopt.reachable(problem.losses_fn, has_aux=True)
        found.append(traced(state.params, batch))

    jax.eval_shape(trace, state)
    for ours, theirs in zip(
        reached_params(LOSSES[loss], state.params), found[0], strict=True
    ):
        assert jax.tree.leaves(ours) == jax.tree.leaves(theirs)


def test_loss_that_is_not_finite_ends_the_run(teacher, tmp_path):
    """Earlier results are kept, and nothing is raised."""
    students = Students(make_config(runs=tmp_path, **SETTINGS), teacher)
    calls = []

    def step(state, *_):
        calls.append(1)
        return state, {"loss/task": 1.0, "loss/distill": (1.0, np.inf)[len(calls) > 2]}

    run = students.run("kd", 0, diagnose=False)._replace(epochs=5)
    state = students.state(students.plan("kd"), 0)
    records = list(fit(run, students.problem, step, state))
    assert (len(records), len(calls)) == (2, 3)
    result = json.loads((run.directory / "result.json").read_text())
    assert (result["diverged"], result["step"]) == (3, 1)
    assert result["accuracy/last"] == records[1]["test/accuracy"]


def test_diverged_run_does_not_stop_the_others(tmp_path):
    settings = SETTINGS | {"teacher_epochs": 1, "learning_rate": 1e20, "seeds": 2}
    config = make_config(runs=tmp_path, methods=("labels_only", "kd"), **settings)
    experiment.run(config, Console(width=200))
    assert [row[1] for row in table.make_table(config)[1]] == ["diverged (2 of 2)"] * 2


def test_losses_command(tmp_path, monkeypatch, capsys):
    arguments = {
        **SETTINGS,
        "runs": tmp_path,
        "teacher-epochs": 1,
        "seeds": 2,
        "epochs": 1,
        "batch-size": 20,
    }
    del arguments["batch_size"], arguments["timing_rounds"]
    words = [w for k, v in arguments.items() for w in (f"--{k}", str(v))]
    words += ["--losses", "dist", "sp", "--methods", "kd", "dto_kd_shared"]
    monkeypatch.setattr("sys.argv", ["kdlab", "losses", *words])
    assert main() == 0
    assert "dto_kd_shared" in capsys.readouterr().out
    folder = tmp_path / "losses"
    lines = (folder / "table_losses.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[:4]] == [
        "loss",
        "---",
        "dist",
        "sp",
    ]
    assert lines[2].count("±") == 4  # two methods, last epoch and best
    results = sorted(folder.rglob("result.json"))
    assert len(results) == 2 + 2 * 2 * 2  # the baseline, then all
    times = [file.stat().st_mtime_ns for file in results]

    # One seed is lost, the rest stays: nothing is trained again.
    lost = folder / "sp" / "kd" / "seed1" / "result.json"
    lost.write_text(json.dumps({"diverged": 1}))
    times[results.index(lost)] = lost.stat().st_mtime_ns
    assert main() == 0
    assert [file.stat().st_mtime_ns for file in results] == times
    assert "diverged (1 of 2)" in (folder / "table_losses.md").read_text()
    numbers = json.loads((folder / "table_losses.json").read_text())
    assert {"diverged": 1} in numbers["sp"]["kd"]


def test_cell_names_both_epochs_or_how_many_diverged():
    good = {"accuracy/last": 0.5, "accuracy/best": 0.75}
    better = {"accuracy/last": 0.7, "accuracy/best": 0.75}
    assert loss_table.format_cell([good, better]) == "60.0 ± 14.1 / 75.0 ± 0.0"
    assert (
        loss_table.format_cell([good, {"diverged": 3} | better]) == "diverged (1 of 2)"
    )
    assert loss_table.format_cell([]) == ""


def test_unknown_loss_lists_those_there_are():
    with pytest.raises(ValueError, match="--loss 'kl' is unknown; choose kd, "):
        make_config(loss="kl")
    with pytest.raises(ValueError, match="--losses 'kl' is unknown; choose kd, "):
        LossesConfig(losses=("kl",))


def test_the_soft_losses_take_a_temperature_of_the_students_own():
    logits = jnp.array([[2.0, 0.0]])
    teacher = Outputs(jnp.array([[0.0, 2.0]]), (), (), jnp.zeros((1, 1)))
    batch = Batch(None, None, jnp.ones(1), teacher=teacher)

    def value(loss, **options):
        made = LOSSES[loss](Setting(Distillation(loss, **options)), nnx.Rngs(0))
        return float(made(logits, (), batch))

    assert value("soft_kl") == value("kd")
    expected = losses.soft_distance(
        logits, teacher.logits, kind="ce", tau_student=1.0, tau_teacher=4.0
    )
    assert value("soft_ce", student_temperature=1.0) == float(expected)
    assert value("soft_mse", student_temperature=1.0) == 4 * (2.0**2 + 0.5**2) / 2
