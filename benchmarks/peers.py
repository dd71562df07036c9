"""Times kdopt, PyTorch and TorchJD in turn in one run."""

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import combination
from benchmarks._measure import ratios
from benchmarks._trees import SHAPES

PEERS = {
    "min_norm": "TorchJD mgda",
    "upgrad": "TorchJD upgrad",
    "pcgrad": "TorchJD pcgrad",
    "imtl_g": "TorchJD imtl_g",
}


def measure(tree: str, k: int, turns: int, python: str) -> list:
    """Returns medians of paired ratios: kdopt here, TorchJD in ``python``."""
    rows: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "shapes.json"
        path.write_text(json.dumps({"shapes": SHAPES[tree](), "k": k}))
        command = [python, str(Path(__file__).with_name("peer_torch.py")), str(path)]
        for _ in range(turns):
            done = subprocess.run([*command, "3"], check=True, capture_output=True)
            theirs = json.loads(done.stdout)["seconds"]
            ours = combination.measure(tree, k, 5, tuple(PEERS))
            for row in ours:
                peer = PEERS.get(row["name"])
                if peer in theirs and "ms" in row:
                    pair = row["ms"], 1e3 * theirs[peer]
                    rows.setdefault(row["name"], []).append(pair)
    return [
        {
            "tree": tree,
            "k": k,
            "name": name,
            "kdopt_ms": float(np.median([ours for ours, _ in pairs])),
            "torchjd_ms": float(np.median([theirs for _, theirs in pairs])),
            "times_faster": float(np.median([theirs / ours for ours, theirs in pairs])),
        }
        for name, pairs in rows.items()
    ]


def measure_steps(rounds: int, python: str) -> list:
    """Times complete steps relative to the plain step of their framework."""
    script = str(Path(__file__).with_name("peer_torch_step.py"))
    done = subprocess.run(
        [python, script, str(rounds)], check=True, capture_output=True
    )
    times = {name: np.array(t) for name, t in json.loads(done.stdout).items()}
    relative = ratios(times, "SGD")
    return [
        {"step": name, "ms": 1e3 * float(np.median(t)), "ratio": relative[name]}
        for name, t in times.items()
    ]
