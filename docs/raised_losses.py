"""Counts how often AdamW raises a loss: python -m docs.raised_losses.

Trains the students of ``kdlab distill`` with several balancers before AdamW, with and
without :func:`kdopt.guard`, into ``runs/raised-losses``. Prints the share of steps
whose update before the guard raises a loss to first order, and the test accuracy.
Takes ten minutes on two cores.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax
from rich.console import Console

import kdopt
from kdlab.experiment import run as experiment
from kdlab.runs import files
from kdlab.settings.config import Config, configure
from kdlab.train import methods

LOSSES = "task", "distill"
SETTINGS: dict[str, Any] = {
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "seeds": 2,
    "timing_rounds": 0,
}

BALANCERS: dict[str, Callable[[], Any]] = {
    "linear": lambda: kdopt.linear([0.1, 0.9]),
    "dto_kd": lambda: kdopt.dto_kd(rescale="convex"),
    "min_norm": kdopt.min_norm,
    "upgrad": kdopt.upgrad,
    "constrained": kdopt.constrained,
    "pcd": kdopt.pcd,
}


def plan(balancer: Callable[[], Any], *, act: bool) -> Callable[..., methods.Plan]:
    """Makes the method of a balancer before the optimiser of the settings, guarded.

    Args:
        balancer: Makes the balancer.
        act: Whether the guard corrects the update or only observes it.
    """

    def make(numbers: methods.Numbers, schedule: optax.Schedule) -> methods.Plan:
        chain = optax.chain(balancer(), methods.make_optimizer(numbers, schedule))
        return methods.Plan(kdopt.guard(chain, act=act))

    return make


def names(balancer: str) -> tuple[str, str]:
    """Returns the names of the methods without and with the guard."""
    return balancer, f"{balancer}_guarded"


def read(config: Config, method: str) -> tuple[list[float], float]:
    """Reads the shares of steps that raise each loss and the accuracy, seed means."""
    shares, accuracies = [0.0] * len(LOSSES), 0.0
    for seed in range(config.seeds):
        epochs = files.read_metrics(files.seed_folder(config.directory, method, seed))
        # Metrics are means over the steps of an epoch, whose number is fixed.
        for i, name in enumerate(LOSSES):
            found = [epoch[f"train/update/rises/{name}"] for epoch in epochs]
            shares[i] += sum(found) / len(found) / config.seeds
        accuracies += epochs[-1]["test/accuracy"] / config.seeds
    return shares, accuracies


def main() -> None:
    """Trains the students and prints one row per balancer."""
    jax.config.update("jax_default_prng_impl", "rbg")  # as kdlab does
    for name, balancer in BALANCERS.items():
        for method, act in zip(names(name), (False, True), strict=True):
            methods.METHODS[method] = plan(balancer, act=act)
    chosen = tuple(method for name in BALANCERS for method in names(name))
    config = configure(name="raised-losses", methods=chosen, **SETTINGS)
    experiment.run(config, Console(quiet=True))
    print(
        "| before AdamW | task rises | distillation rises | with the guard, task | "
        "distillation | accuracy | with the guard |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in BALANCERS:
        (free, accuracy), (guarded, other) = (read(config, m) for m in names(name))
        rates = " | ".join(f"{share:.1%}" for share in (*free, *guarded))
        print(f"| `{name}` | {rates} | {accuracy:.2%} | {other:.2%} |", flush=True)


if __name__ == "__main__":
    main()
