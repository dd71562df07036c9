"""The same combination in PyTorch and TorchJD; run by the Python that has them.

``python benchmarks/peer_torch.py shapes.json rounds`` prints one JSON object. It reads
shapes and imports nothing of this project.
"""

import json
import statistics
import sys
import time
import warnings

import torch
from torchjd.aggregation import IMTLG, MGDA, PCGrad, UPGrad

warnings.filterwarnings("ignore")


def main(path: str, rounds: int) -> dict[str, float]:
    """Median seconds of stacking K gradients into a matrix and aggregating them."""
    with open(path) as file:
        job = json.load(file)
    grads = [[torch.randn(shape) for shape in job["shapes"]] for _ in range(job["k"])]
    names = {"mgda": MGDA, "upgrad": UPGrad, "pcgrad": PCGrad, "imtl_g": IMTLG}
    aggregators = {}
    for name, make in names.items():
        try:
            aggregators[name] = make()
        except ImportError:  # its solver is an extra
            continue

    def aggregate(name: str) -> list:
        rows = [torch.cat([leaf.reshape(-1) for leaf in tree]) for tree in grads]
        combined = aggregators[name](torch.stack(rows))
        parts = combined.split([leaf.numel() for leaf in grads[0]])
        return [p.view_as(g) for p, g in zip(parts, grads[0], strict=True)]

    times: dict[str, list[float]] = {name: [] for name in aggregators}
    for _ in range(rounds + 1):
        for name in list(times):
            began = time.perf_counter()
            try:
                aggregate(name)
            except ImportError:
                del times[name]
                continue
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(t[1:]) for name, t in times.items()}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
