"""Runs that are interrupted, killed or diverge."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from _students import fitted, students
from kdlab.cli.main import main
from kdlab.devices.checkpoint import Position, Saver
from kdlab.devices.interrupt import TerminatedError
from tests import _compiler

pytestmark = pytest.mark.usefixtures("standard")

KILLED = Path(__file__).parents[1] / "_killed.py"
STEPS = 4  # per epoch


def records(directory):
    """Reads ``metrics.jsonl``, without the times."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in lines]


def final(directory, pupils, method):
    """Returns the arrays of the newest checkpoint."""
    with Saver(directory / "checkpoints") as saver:
        state, position = saver.restore(pupils.state(pupils.plan(method), 0))
    assert position == Position(pupils.config.training.epochs)
    return [np.asarray(x) for x in jax.tree.leaves(jax.tree.map(_plain, state))]


def _plain(x):
    key = jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(x) if key else x


def assert_same_bits(ours, theirs):
    assert len(ours) == len(theirs) > 10
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(x, y)


def terminated_at(number, *signals):
    """Wraps a step that asks for an end after a number of calls."""

    def wrap(step):
        calls = []

        def wrapped(*args):
            calls.append(1)
            if len(calls) == number:
                for one in signals or (signal.SIGTERM,):
                    os.kill(os.getpid(), one)
            return step(*args)

        return wrapped

    return wrap


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("dto_kd", {"ema": 0.9}),
        # Dropout keys and a batch norm; a memory that every step moves.
        ("kd", {"loss": "nd", "student": "cnn_student"}),
        ("dto_kd_shared", {"loss": "crd"}),
    ],
)
def test_terminated_run_goes_on_bit_for_bit(tmp_path, method, settings):
    """In the middle of the first epoch, at its end, then at the end of the second."""
    pupils = students(**settings)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    fitted(pupils, whole, method)
    before = signal.getsignal(signal.SIGTERM)
    for number in (2, 2, 3):
        with pytest.raises(TerminatedError):
            fitted(pupils, cut, method, wrap=terminated_at(number))
    assert signal.getsignal(signal.SIGTERM) == before
    assert len(fitted(pupils, cut, method)) == 1  # the first epoch was done before
    assert records(cut) == records(whole)
    assert [record["epoch"] for record in records(cut)] == [1, 2]
    assert_same_bits(*(final(folder, pupils, method) for folder in (cut, whole)))
    results = [json.loads((x / "result.json").read_text()) for x in (cut, whole)]
    for result in results:
        del result["seconds"]
    assert results[0] == results[1]


@pytest.mark.parametrize("number", [2, 2 * STEPS])
def test_one_interrupt_saves_and_a_second_ends_at_once(
    number, tmp_path, capsys, request
):
    """Even at the very last step, after which there is none to stop at."""
    # A shell that starts the tests in the background has them ignore Ctrl-C.
    before = signal.default_int_handler
    request.addfinalizer(
        partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
    )
    signal.signal(signal.SIGINT, before)
    pupils = students()
    fitted(pupils, tmp_path / "whole")
    twice = terminated_at(number, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fitted(pupils, tmp_path / "twice", wrap=twice)
    assert not (tmp_path / "twice" / "result.json").exists()
    with pytest.raises(KeyboardInterrupt):
        fitted(pupils, tmp_path / "cut", wrap=terminated_at(number, signal.SIGINT))
    assert signal.getsignal(signal.SIGINT) == before
    with Saver(tmp_path / "cut" / "checkpoints") as saver:
        _, position = saver.restore(pupils.state(pupils.plan("kd"), 0))
    assert STEPS * position.epoch + position.step == number
    assert "Saving; a second Ctrl-C" in capsys.readouterr().err
    fitted(pupils, tmp_path / "cut")
    assert records(tmp_path / "cut") == records(tmp_path / "whole")


def killed(*plans):
    """Runs plans in a separate process; returns its exit code."""
    program = [sys.executable, str(KILLED), *plans]
    environment = _compiler.environment(devices=1)
    with subprocess.Popen(
        program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            output, _ = process.communicate(timeout=300)
        finally:
            process.kill()
    print(output.decode())
    return process.returncode


def test_killed_run_goes_on_bit_for_bit(tmp_path):
    """``kill -9`` between steps and in the middle of a checkpoint."""
    whole, middle, write = (
        str(tmp_path / name) for name in ("whole", "middle", "write")
    )
    assert killed(f"{whole}:end", f"{middle}:step6") == -signal.SIGKILL
    assert killed(f"{middle}:end", f"{write}:write3") == -signal.SIGKILL
    assert not list(tmp_path.glob("middle/*/*.orbax-checkpoint-tmp"))
    assert list(tmp_path.glob("write/*/*.orbax-checkpoint-tmp"))
    assert killed(f"{write}:end") == 0
    with np.load(f"{whole}.npz") as expected:
        for name in (middle, write):
            with np.load(f"{name}.npz") as found:
                assert_same_bits(list(found.values()), list(expected.values()))
    for name in ("middle", "write"):
        assert records(tmp_path / name) == records(tmp_path / "whole")


def faulty(numbers):
    """Wraps a step so that its loss is not finite on some calls."""

    def wrap(step):
        calls = []

        def wrapped(state, data, teacher, indices, weights):
            calls.append(1)
            bad = np.nan if len(calls) in numbers else 1.0
            return step(state, data, teacher, indices, weights * np.float32(bad))

        return wrapped

    return wrap


def test_run_stops_at_a_loss_that_is_not_finite(tmp_path):
    """The result says where, and the last checkpoint is good."""
    pupils = students(checkpoint_seconds=0)
    found = fitted(pupils, tmp_path, wrap=faulty({STEPS + 2}))
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["diverged"], result["step"]) == (2, 2)
    assert result["accuracy/last"] == found[0]["test/accuracy"]
    with Saver(tmp_path / "checkpoints") as saver:
        state, position = saver.restore(pupils.state(pupils.plan("kd"), 0))
    assert (position.epoch, position.step) == (1, 1)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


def test_step_that_is_not_finite_is_skipped_and_counted(tmp_path):
    pupils = students(on_nonfinite="skip")
    found = fitted(pupils, tmp_path / "some", wrap=faulty({2, 3}))
    assert [record["train/skipped"] for record in found] == [2, 0]
    assert all(np.isfinite(list(record.values())).all() for record in found)
    assert not fitted(pupils, tmp_path / "all", wrap=faulty(range(100)))
    result = json.loads((tmp_path / "all" / "result.json").read_text())
    assert result["diverged"] == 1


def test_checkpoint_of_another_network_is_refused(tmp_path):
    one, other = students(), students(student="cnn_student")
    with Saver(tmp_path) as saver:
        saver.save(3, one.state(one.plan("kd"), 0), Position())
        saver.wait()
        with pytest.raises(ValueError, match="another network, method or version"):
            saver.restore(other.state(other.plan("kd"), 0))


def test_terminated_command_says_how_to_go_on(monkeypatch, capsys):
    def run(*_):
        raise TerminatedError

    monkeypatch.setattr("sys.argv", ["kdlab", "distill"])
    monkeypatch.setattr("kdlab.experiment.run.run", run)
    assert main() == 143
    assert "the same command resumes" in capsys.readouterr().out
