"""Two processes on loopback train like one with their joint batch."""

import json
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

import _archives
from kdlab.cli import distill as command
from tests import _compiler

pytestmark = pytest.mark.usefixtures("standard")

SETTINGS = {
    "dataset": "digits",
    "teacher": "mlp",
    "student": "mlp",
    "labels": 60,
    "batch_size": 16,
    "teacher_epochs": 1,
    "epochs": 1,
    "seeds": 1,
    "timing_rounds": 0,
    "methods": "dto_kd_shared",
}


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture
def pair():
    """Starts the example in two processes, while the test continues."""
    begun = []

    def begin(*arguments):
        program = [sys.executable, "-m", "kdlab", "distill", *arguments]
        program += [f"--coordinator=127.0.0.1:{free_port()}", "--num-processes=2"]
        begun.extend(
            subprocess.Popen(
                [*program, f"--process-id={number}"],
                env=_compiler.environment(devices=1),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for number in range(2)
        )

        def end():
            shown = [process.communicate(timeout=300)[0] for process in begun]
            codes = [process.returncode for process in begun]
            assert codes == [0, 0], "\n".join(shown)
            return shown

        return end

    yield begin
    for process in begun:  # JAX catches SIGTERM, so nothing less ends them
        process.kill()


def assert_alike(ours, theirs, name):
    """Compares all but the time; quotients by a small loss are less accurate."""
    ours, theirs = (
        [json.loads(line) for line in (runs / name).read_text().splitlines()]
        for runs in (ours, theirs)
    )
    assert len(ours) == len(theirs) > 0
    for here, there in zip(ours, theirs, strict=True):
        assert here.keys() == there.keys()
        for key in there.keys() - {"seconds"}:
            sure = key.startswith(("train/loss", "train/weight", "test/"))
            rtol = 1e-5 if sure else 1e-3
            np.testing.assert_allclose(here[key], there[key], rtol, 1e-5, err_msg=key)


def run_alone(*arguments):
    with jax.default_prng_impl("rbg"):  # as the command line does
        command.run(arguments, "distill", Console(quiet=True))


@pytest.mark.slow
def test_two_processes_train_as_one(pair, tmp_path):
    arguments = [f"--{key.replace('_', '-')}={x}" for key, x in SETTINGS.items()]
    end = pair(*arguments, f"--runs={tmp_path / 'two'}")
    run_alone(*arguments, f"--runs={tmp_path / 'one'}")
    shown = end()
    # Only the first one prints.
    assert "dto_kd_shared" in shown[0] and "dto_kd_shared" not in shown[1]
    name = "digits/dto_kd_shared/seed0/metrics.jsonl"
    assert_alike(tmp_path / "two", tmp_path / "one", name)


@pytest.mark.slow
def test_two_processes_stream_as_one(pair, tmp_path):
    """Each decodes its half of every batch."""
    _archives.write_imagenet(tmp_path / "data", num_train=11, num_validation=6)
    arguments = ["--dataset=imagenet2012", f"--data-dir={tmp_path / 'data'}"]
    arguments += ["--image-size=8", "--labels=None", "--noise=0", "--augment=none"]
    arguments += ["--teacher=mlp", "--teacher-epochs=1", "--student=mlp", "--epochs=2"]
    arguments += ["--methods=kd", "--loss=nd", "--seeds=1", "--timing-rounds=0"]
    arguments += ["--batch-size=4"]
    end = pair(*arguments, f"--runs={tmp_path / 'two'}")
    run_alone(*arguments, "--devices=1", f"--runs={tmp_path / 'one'}")
    end()
    name = "digits/kd/seed0/metrics.jsonl"
    assert_alike(tmp_path / "two", tmp_path / "one", name)


@pytest.mark.slow
def test_two_processes_make_the_smoke_run_of_one(pair, tmp_path):
    recipe = "cifar100/kd/resnet56-resnet20"
    end = pair(f"--recipe={recipe}", "--smoke", f"--runs={tmp_path / 'two'}")
    run_alone(f"--recipe={recipe}", "--smoke", f"--runs={tmp_path / 'one'}")
    end()
    name = f"smoke/{recipe}/kd/seed0/metrics.jsonl"
    assert_alike(tmp_path / "two", tmp_path / "one", name)
