"""Times TorchJD's aggregators, with stacking, on the same card in the same run."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax

from benchmarks.accelerator._arrays import Shapes
from benchmarks.accelerator._clock import Row

SCRIPT = Path(__file__).parents[1] / "peer_torch.py"


def measure(tree: str, shapes: Shapes, k: int, seconds: float) -> Iterator[Row]:
    """Yields one row for each aggregator; missing ones are marked absent."""
    label = {"tree": tree, "k": k, "dtype": "float32"}
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    job = {"shapes": shapes, "k": k, "device": device}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(job, file)
        file.flush()
        command = [sys.executable, str(SCRIPT), file.name, "5"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=max(seconds, 1)
            )
        except subprocess.TimeoutExpired:
            yield {**label, "program": "TorchJD", "error": "no time left"}
            return
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        yield {**label, "program": "TorchJD", "error": lines[-1][:200]}
        return
    answer = json.loads(done.stdout)
    for name, took in answer["seconds"].items():
        yield {
            **label,
            "program": name,
            "us": 1e6 * took,
            "versions": answer["versions"],
        }
    for name in answer["absent"]:
        yield {**label, "program": name, "error": "absent"}
