"""The accelerator benchmarks run here in small, and detect a wrong result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import kdopt
from benchmarks.accelerator import (
    correct_gram,
    correct_losses,
    correct_methods,
    correctness,
    steps,
    trees,
    variants,
)
from benchmarks.accelerator._arrays import struct
from benchmarks.accelerator._clock import Budget, Program, build, build_all
from tests._methods import first_step
from tests.losses._table import CASES, Case

ROOT = Path(__file__).parents[1]
LONG = 3600.0


def run(module, *arguments):
    """The command itself, as a user types it; promotion is allowed there."""
    command = [sys.executable, "-m", module, "--tiny", *map(str, arguments)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "examples" / "kdlab" / "src")])
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )


def document(done, path):
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def accelerator(tmp_path_factory):
    path = tmp_path_factory.mktemp("accelerator") / "out.json"
    done = run("benchmarks.accelerator", "--budget", LONG, "--out", path)
    return document(done, path), done.stdout


def errors(rows):
    return [
        row for row in rows if row.get("error") and "absent" not in str(row["error"])
    ]


@pytest.mark.slow
def test_every_part_yields_its_rows(accelerator):
    found, printed = accelerator
    assert {row["ceiling"] for row in found["ceilings"]} >= {"copy"}
    programs = {(row["tree"], row["k"], row["program"]) for row in found["trees"]}
    for case in trees.TINY:
        assert {(case.tree, case.k, name) for name in case.names} <= programs
    names = {row["mode"] for row in found["steps"] if row["task"] == "decoder"}
    assert names == set(steps.NAMES)
    assert {row["task"] for row in found["steps"]} == {"mlp", "encoder", "decoder"}
    assert {row["mode"] for row in found["students"]} == {"plain"}
    listed = {(trial.group, trial.name) for trial in variants.trials(tiny=True)}
    assert {(row["group"], row["variant"]) for row in found["variants"]} == listed
    peers = [row for row in found["trees"] if "orch" in row["program"]]
    assert peers  # timed, or named as absent
    for part in ("steps", "students", "variants"):
        assert not errors(found[part])
        assert part in printed


@pytest.mark.slow
def test_every_check_of_correctness_passes(accelerator):
    found, _ = accelerator
    rows = found["correctness"]
    kinds = {row["check"] for row in rows}
    assert kinds == {
        "gram",
        "loss",
        "single precision",
        "no loss rises",
        "golden",
        "theorem",
    }
    assert all(row["ok"] for row in rows), correctness.show(rows)


@pytest.mark.slow
def test_prototypes_equal_today(accelerator):
    """Their results, not only their times."""
    found, _ = accelerator
    compared = [row for row in found["variants"] if row["from_today"] is not None]
    assert {row["variant"] for row in compared} == set(variants.GRAMS)
    assert all(row["from_today"] < 1e-4 for row in compared)


@pytest.mark.slow
def test_distillation_runs(tmp_path):
    path = tmp_path / "out.json"
    found = document(run("benchmarks.distil", "--out", path), path)
    assert set(found["students"]) == {"labels", "kd", "dot", "dto_kd_shared"}
    for own in found["students"].values():
        assert len(own["accuracies"]) == 2 and own["epochs"] == 1
        assert all(0 <= accuracy <= 1 for accuracy in own["accuracies"])
    assert 0 <= found["teacher"]["accuracy"] <= 1


def rounded(x):
    """As TF32 rounds the factors of a product: to ten bits of mantissa."""
    bits = jax.lax.bitcast_convert_type(jnp.asarray(x, jnp.float32), jnp.uint32)
    kept = (bits + jnp.uint32(2**12)) & jnp.uint32(0xFFFFE000)
    return jax.lax.bitcast_convert_type(kept, jnp.float32)


def test_a_gram_matrix_of_rounded_factors_is_told(standard):
    def gram(grads, **options):
        return kdopt.gram(jax.tree.map(rounded, grads), **options)

    rows = list(correct_gram.measure(True, gram))
    failed = correctness.failures(rows)
    assert len(failed) > len(rows) / 2
    assert "FAILED gram" in correctness.show(rows)


def test_a_loss_of_rounded_factors_is_told(standard):
    (right,) = (case for case in CASES if case.name == "kd")

    def wrong(s, t, y, w):
        # Exact in double precision, and on the host, whose error is the standard.
        on_device = jax.lax.platform_dependent(s, default=rounded_like)
        return right.call(on_device, t, y, w)

    def rounded_like(s):
        host = jax.config.jax_default_device is not None
        return s if host or s.dtype == jnp.float64 else s + (rounded(s) - s)

    cases = [Case("kd", "logits", wrong)]
    rows = list(correct_losses.measure(True, Budget(LONG), cases))
    assert correctness.failures(rows)


def test_a_wrong_method_is_told(standard):
    """One whose weights lose digits on the device, and one that breaks a theorem."""

    def start(name, k):
        first = first_step(name, k)

        def step(grads, values):
            update, weights = first(grads, values)
            if jax.config.jax_default_device is None:
                return update * (1 + 1e-3), weights
            return update, weights

        return step

    rows = list(correct_methods.measure(True, Budget(LONG), ("min_norm",), start))
    told = {row["check"] for row in correctness.failures(rows)}
    assert told == {"single precision", "theorem"}


def test_no_time_left_is_not_a_failure():
    rows = list(correct_methods.measure(True, Budget(0), ("min_norm",)))
    assert rows and all(row["skipped"] for row in rows)
    assert not correctness.failures(rows)


def test_a_program_that_does_not_compile_is_named():
    def wrong(inputs, carry):
        raise ValueError("no such thing")

    built = build(Program("wrong", wrong, struct((2,)), struct((2,))))
    assert built.run is None and built.error == "ValueError: no such thing"


def test_programs_without_time_are_named():
    program = Program("late", lambda x, c: x + c, struct((2,)), struct((2,)))
    late = build_all([program._replace(name=str(n)) for n in range(40)], 0.0)
    assert len(late) == 40
    assert any("not compiled" in built.error for built in late.values())


def test_every_step_of_a_loop_is_done():
    """Nothing is hoisted out of the loop, though the inputs stay the same."""
    program = Program("sum", lambda x, c: c + jnp.sum(x), struct((8,)), struct(()))
    built = build(program._replace(iterations=5))
    assert float(built.run(jnp.ones(8), jnp.zeros(()))) == 40.0
    assert built.launches >= 1
