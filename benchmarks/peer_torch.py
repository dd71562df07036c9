"""Times the same combination in PyTorch and TorchJD, in a Python that has them.

``python benchmarks/peer_torch.py job.json rounds`` prints one JSON object: seconds of
each aggregator, names of missing ones, and versions. A job has the shapes of the
leaves, ``k`` and, if it is not the CPU, the ``device``. It imports nothing from this
project.
"""

import importlib
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata

import torch

warnings.filterwarnings("ignore")

AGGREGATORS = {
    "mgda": "MGDA",
    "upgrad": "UPGrad",
    "pcgrad": "PCGrad",
    "imtl_g": "IMTLG",
}
BARE = "torch, stacked by hand"


def _bare(matrix: torch.Tensor) -> torch.Tensor:
    """Does what any method on a stacked matrix does: a Gram matrix, a combination."""
    gram = matrix @ matrix.T
    return (1 / gram.diagonal().sqrt()) @ matrix


def _aggregators() -> tuple[dict[str, Callable], list[str]]:
    made, absent = {BARE: _bare}, []
    for name, factory in AGGREGATORS.items():
        try:  # TorchJD itself, or the solver of one of its extras
            module = importlib.import_module("torchjd.aggregation")
            made[f"TorchJD {name}"] = getattr(module, factory)()
        except ImportError:
            absent.append(f"TorchJD {name}")
    return made, absent


def main(path: str, rounds: int) -> dict:
    """Returns median seconds of stacking K gradients and aggregating them."""
    with open(path) as file:
        job = json.load(file)
    device = job.get("device", "cpu")
    grads = [
        [torch.randn(shape, device=device) for shape in job["shapes"]]
        for _ in range(job["k"])
    ]
    aggregators, absent = _aggregators()

    def aggregate(fn: Callable) -> list:
        rows = [torch.cat([leaf.reshape(-1) for leaf in tree]) for tree in grads]
        combined = fn(torch.stack(rows))
        parts = combined.split([leaf.numel() for leaf in grads[0]])
        return [p.view_as(g) for p, g in zip(parts, grads[0], strict=True)]

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    times: dict[str, list[float]] = {name: [] for name in aggregators}
    for _ in range(rounds + 1):
        for name in list(times):
            wait()
            began = time.perf_counter()
            try:
                aggregate(aggregators[name])
            except ImportError:
                del times[name]
                absent.append(name)
                continue
            wait()
            times[name].append(time.perf_counter() - began)
    versions = {name: _version(name) for name in ("torch", "torchjd")}
    medians = {name: statistics.median(t[1:]) for name, t in times.items()}
    return {"seconds": medians, "absent": absent, "versions": versions}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
