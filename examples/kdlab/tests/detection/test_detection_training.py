"""Training of detectors: methods, resume, devices, and the command."""

import json

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import kdopt
from _detection import arguments, experiment, make_experiment
from kdlab.detection.methods import METHODS, make_measure, make_method
from kdlab.detection.networks import NETWORKS
from kdlab.detection.optimizer import decayed
from kdlab.devices.checkpoint import Saver
from kdlab.models.vidt import Vidt
from kdlab.runs import files

pytestmark = pytest.mark.usefixtures("standard")


slow = pytest.mark.slow  # two networks and several steps to compile


@pytest.fixture(scope="module")
def gradients():
    """Losses, gradients of both and what they reach, under VkD's distance."""
    one = experiment()
    one.train("teacher", 0)
    problem, initial = one.problem("vkd", teaches=False)
    params = initial(0)
    reach = one.reach(problem, initial)
    given = arguments(one)
    values, grads = jax.jit(kdopt.value_and_grads(problem.losses))(params, *given)
    return problem, params, reach, given, values, grads


def names_of(flags):
    return {
        ".".join(str(getattr(key, "key", key)) for key in path)
        for path, flag in jax.tree.leaves_with_path(flags)
        if flag
    }


@slow
def test_each_loss_reaches_its_own_parameters(gradients):
    """Heads and first references are the task's alone, projectors distillation's."""
    _, _, (task, distill), *_ = gradients
    for name in names_of(task) - names_of(distill):
        assert any(part in name for part in ("class_embed", "bbox_embed", "reference"))
    assert names_of(distill) - names_of(task) == {"projectors"}
    assert any("backbone" in name for name in names_of(task) & names_of(distill))


def step_of(name, gradients):
    """Combined gradient and weights of a method."""
    problem, params, reach, given, *_ = gradients
    keep = optax.trace(decay=0.0)  # its state is the gradient that it was given
    method = make_method(name, problem, keep, reach, weight=4.0)
    state, metrics = jax.jit(method.step)(method.init(params), *given)
    return optax.tree.get(state.optimizer, "trace"), metrics


@slow
@pytest.mark.parametrize("name", ["dto_kd", "dto_kd_shared", "dto_kd_amortized"])
def test_parameters_of_one_loss_keep_its_gradient(name, gradients):
    *_, reach, _, _, grads = gradients
    found, metrics = step_of(name, gradients)
    weights = [metrics["weight/task"], metrics["weight/distill"]]
    np.testing.assert_allclose(sum(weights), 1, rtol=1e-5)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads))
    leaves = [jax.tree.leaves(tree) for tree in (found, *grads, *reach)]
    for update, task, distill, of_task, of_distill in zip(*leaves, strict=True):
        balanced = weights[0] * task + weights[1] * distill
        expected = balanced if of_task and of_distill else task + distill
        # some gradients vanish but for rounding, as those of biases before a norm
        atol = max(1e-3 * np.abs(expected).max(), 1e-6 * largest)
        np.testing.assert_allclose(update, expected, rtol=1e-3, atol=atol)


@slow
def test_exact_weights_are_those_of_the_common_parameters(gradients):
    problem, params, reach, given, values, grads = gradients
    _, metrics = step_of("dto_kd", gradients)
    common = [
        [
            x
            for x, a, b in zip(*map(jax.tree.leaves, (tree, *reach)), strict=True)
            if a and b
        ]
        for tree in grads
    ]
    gram = kdopt.gram(tuple(common))
    expected = kdopt.dto_kd_weights(gram, values, rescale="convex")
    found = metrics["weight/task"], metrics["weight/distill"]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    seen = jax.jit(make_measure(problem, reach))(params, *given)
    cosine = gram[0, 1] / np.sqrt(gram[0, 0] * gram[1, 1])
    np.testing.assert_allclose(seen["gradient/cosine/distill"], cosine, rtol=1e-3)
    ratio = np.sqrt(gram[1, 1] / gram[0, 0])
    np.testing.assert_allclose(seen["gradient/dominance/distill"], ratio, rtol=1e-3)


def test_weights_decay_as_in_the_reference():
    """Not detection tokens and their positions, nor vectors of the body."""
    config = NETWORKS["vidt_smoke"]
    model = nnx.eval_shape(lambda: Vidt(config, rngs=nnx.Rngs(0)))
    params = {"network": nnx.state(model, nnx.Param)}
    names = names_of(decayed(params))
    everything = names_of(jax.tree.map(lambda _: True, params))
    for name in everything - names:
        assert "backbone" in name
        assert any(
            part in name for part in ("det_token", "det_pos_embed", "bias", "scale")
        )
    assert any("neck" in name and "bias" in name for name in names)
    assert any("relative_position_bias" in name for name in names)


class KilledError(Exception):
    """Stands for a kill: nothing is saved on the way out."""


def final_params(one):
    program, initial = one.program("labels_only")
    state = program.init(initial(0))
    with Saver(one.folder("labels_only", 0) / files.CHECKPOINTS) as saver:
        state, position = saver.restore(state)
    assert position.step == 3
    return state.params


@slow
def test_a_killed_training_resumes_bit_for_bit(tmp_path):
    one = make_experiment(tmp_path / "a", evaluations=3)
    one.train("labels_only", 0)
    other = make_experiment(tmp_path / "b", evaluations=3, checkpoint_seconds=0.0)
    program, initial = one.program("labels_only")  # compiled once
    calls = []

    def killed(state, *rest):
        calls.append(1)
        if len(calls) == 3:
            raise KilledError
        return program.step(state, *rest)

    other._programs["labels_only"] = program._replace(step=killed), initial
    with pytest.raises(KilledError):
        other.train("labels_only", 0)
    folder = other.folder("labels_only", 0)
    assert len(files.read_metrics(folder)) == 2 and not files.has_result(folder)
    other.train("labels_only", 0)
    assert len(calls) == 4  # the third step, again
    for found, expected in zip(
        *(jax.tree.leaves(final_params(x)) for x in (other, one)), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    found, expected = (
        (x.folder("labels_only", 0) / files.METRICS).read_text() for x in (other, one)
    )
    assert found == expected


@slow
@pytest.mark.parametrize("method", ["vkd", "dto_kd", "dto_kd_shared"])
def test_eight_devices_train_as_one_does(method, tmp_path, monkeypatch):
    found = []
    for devices in (1, 8):
        monkeypatch.setattr("kdlab.devices.mesh.list_devices", jax.devices)
        one = make_experiment(tmp_path / str(devices), devices=devices, measure_every=1)
        one.train("teacher", 0)
        one.train(method, 0)
        found.append(files.read_metrics(one.folder(method, 0)))
    assert len(found[0]) == len(found[1]) > 0
    for ours, theirs in zip(*found, strict=True):
        for name in ours:
            if name.startswith(("loss/", "gradient/cosine", "gradient/dominance")):
                np.testing.assert_allclose(
                    ours[name], theirs[name], 2e-3, 1e-4, err_msg=name
                )


@slow
def test_the_command_trains_every_method(tmp_path, capsys, monkeypatch):
    from kdlab.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["kdlab", "detect", "--smoke"])
    assert main.main() == 0
    folder = tmp_path / "runs" / "detection" / "smoke" / "digits"
    for method in ("teacher", *METHODS):
        result = json.loads((folder / method / "seed0" / "result.json").read_text())
        assert "coco/ap50" in result
        assert (folder / "figures" / f"boxes_{method}.png").exists()
    shown = capsys.readouterr().out
    assert all(method in shown for method in METHODS)


def test_settings_of_an_experiment_are_kept(tmp_path):
    make_experiment(tmp_path).claim_directory()
    make_experiment(tmp_path, seeds=5).claim_directory()
    with pytest.raises(ValueError, match=r"steps was 3, is 4.*--name"):
        make_experiment(tmp_path, steps=4).claim_directory()
