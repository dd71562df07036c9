"""Two processes on loopback train as one does with their joint batch."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

from examples.distill.config import Config
from examples.distill.experiment import run

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
}
RUN = "demo/dto_kd_shared/seed0"


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def records(runs):
    lines = (runs / RUN / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    arguments = [f"--runs={tmp_path / 'two'}", "--methods=dto_kd_shared"]
    arguments += [f"--{k.replace('_', '-')}={v}" for k, v in SETTINGS.items()]
    arguments += [f"--coordinator=127.0.0.1:{free_port()}", "--num-processes=2"]
    program = [sys.executable, "-m", "examples.distill", *arguments]
    environment = os.environ | {
        "XLA_FLAGS": "",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # for compiling takes longest
    }
    both = [
        subprocess.Popen(
            [*program, f"--process-id={number}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    try:
        # The command line uses this generator.
        with jax.default_prng_impl("rbg"):
            one = Config(runs=tmp_path / "one", methods=("dto_kd_shared",), **SETTINGS)
            run(one, Console(quiet=True))
        shown = [process.communicate(timeout=300)[0] for process in both]
    finally:
        # JAX catches SIGTERM, so nothing less ends them.
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], "\n".join(shown)
    # The first alone speaks.
    assert "dto_kd_shared" in shown[0] and "dto_kd_shared" not in shown[1]
    ours, theirs = records(tmp_path / "two"), records(tmp_path / "one")
    assert len(ours) == len(theirs) == 1
    for name in theirs[0]:
        if name != "seconds":
            np.testing.assert_allclose(
                ours[0][name], theirs[0][name], 1e-5, 1e-5, err_msg=name
            )
