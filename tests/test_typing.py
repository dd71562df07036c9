"""What type checkers report for a user's script."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECKERS = {
    "mypy": [
        "--strict-equality",
        "--ignore-missing-imports",
        "--follow-imports=silent",
    ],
    "basedpyright": ["--level", "error"],
}
MISTAKES = """\
import jax.numpy as jnp
import kdopt

values, grads = kdopt.value_and_grads(lambda p: (jnp.sum(p), 0.0))(jnp.ones(2))
values.no_such_attribute
grads + 1
"""


@pytest.mark.parametrize(
    "checker", ["basedpyright", pytest.param("mypy", marks=pytest.mark.slow)]
)
def test_a_users_script_is_typed_and_mistakes_are_found(checker, tmp_path):
    mistakes = tmp_path / "mistakes.py"
    mistakes.write_text(MISTAKES)
    cache = ["--cache-dir", str(tmp_path)] if checker == "mypy" else []
    scripts = [str(ROOT / "tests/typing/training.py"), str(mistakes)]
    command = [sys.executable, "-m", checker, *CHECKERS[checker], *cache, *scripts]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    errors = [line for line in done.stdout.splitlines() if " error: " in line]
    assert len(errors) == 2, done.stdout + done.stderr
    for line, number in zip(errors, (5, 6), strict=True):
        assert f"mistakes.py:{number}" in line
