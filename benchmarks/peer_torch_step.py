"""Times one training step of ResNet-8x4 in PyTorch, with TorchJD and LibMTL.

Run by a Python that has them: ``python benchmarks/peer_torch_step.py rounds`` prints
one JSON object, seconds of each step in each round. It imports nothing from this
project.
"""

import json
import sys
import time
from collections.abc import Callable

import torch
import torchjd
from torch import nn
from torch.nn import functional as F

BATCH = 16

Losses = tuple[torch.Tensor, torch.Tensor]


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride > 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Runs the block."""
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


def network() -> nn.Module:
    """Makes ResNet-8x4 for 100 classes: three stages of one block each."""
    stem = [nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    blocks = [Block(32, 64, 1), Block(64, 128, 2), Block(128, 256, 2)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 100)]
    return nn.Sequential(*stem, *blocks, *head)


def steps() -> dict[str, Callable]:
    """Returns functions without arguments by name, each with its own network."""
    x = torch.randn(BATCH, 3, 32, 32)
    labels = torch.randint(100, (BATCH,))
    teacher = F.softmax(torch.randn(BATCH, 100) / 4, 1)

    def both(logits: torch.Tensor) -> Losses:
        soft = F.kl_div(F.log_softmax(logits / 4, 1), teacher, reduction="batchmean")
        return F.cross_entropy(logits, labels), 16 * soft

    def step(backward: Callable) -> Callable:
        model = network()
        sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def run() -> None:
            sgd.zero_grad()
            logits = model(x)
            backward(both(logits), logits, model)
            sgd.step()

        return run

    def plain(losses: Losses, *_: object) -> None:
        sum(losses).backward()

    def twice(losses: Losses, *_: object) -> None:
        first, second = losses
        first.backward(retain_graph=True)
        second.backward()

    def torchjd_mgda(losses: Losses, logits: torch.Tensor, model: nn.Module) -> None:
        torchjd.autojac.mtl_backward(losses, logits)
        torchjd.autojac.jac_to_grad(model.parameters(), torchjd.aggregation.MGDA())

    out = {
        "SGD": step(plain),
        "SGD, two backward passes": step(twice),
        "TorchJD, mtl_backward and MGDA": step(torchjd_mgda),
    }
    try:
        from LibMTL.weighting import MGDA
    except ImportError:
        return out

    def libmtl_mgda(losses: Losses, _: torch.Tensor, model: nn.Module) -> None:
        weighting = MGDA()
        weighting.task_num, weighting.rep_grad, weighting.device = 2, False, "cpu"
        weighting.get_share_params = model.parameters
        # zeros, since it writes its result into the gradients that it finds
        weighting.zero_grad_share_params = lambda: model.zero_grad(set_to_none=False)
        weighting.backward(torch.stack(losses), mgda_gn="none")

    return {**out, "LibMTL, MGDA": step(libmtl_mgda)}


def main(rounds: int) -> dict[str, list[float]]:
    """Times every step in turn, after two warm-up rounds."""
    calls = steps()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 2):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    return {name: column[2:] for name, column in times.items()}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
