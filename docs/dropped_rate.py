"""Counts how often exact DTO-KD gives a loss no weight: python -m docs.dropped_rate.

Trains the students of ``kdlab distill`` with ``dto_kd`` under :func:`kdopt.monitor`,
with and without wrong labels, into ``runs/dropped-rate-NOISE``. Takes three
minutes on two cores.
"""

import jax
import optax
from rich.console import Console

import kdopt
from kdlab.experiment import run as experiment
from kdlab.runs import files
from kdlab.settings.config import configure
from kdlab.train import methods

LOSSES = "task", "distill"


def dto_kd(numbers: methods.Numbers, schedule: optax.Schedule) -> methods.Plan:
    """Makes the method ``dto_kd``, with the metrics of the last step in its state."""
    plan = UNWATCHED(numbers, schedule)
    return plan._replace(tx=kdopt.monitor(plan.tx, decay=0.0))


UNWATCHED = methods.METHODS["dto_kd"]


def main() -> None:
    """Prints the share of steps on which a loss has the weight 0, by seed."""
    jax.config.update("jax_default_prng_impl", "rbg")  # as kdlab does
    methods.METHODS["dto_kd"] = dto_kd
    console = Console(quiet=True)
    print("| wrong labels | seed | no task | no distillation | one of the two |")
    print("|---:|---:|---:|---:|---:|")
    for noise in (0.4, 0.0):
        config = configure(
            name=f"dropped-rate-{noise}",
            noise=noise,
            methods=("dto_kd",),
            timing_rounds=0,
        )
        experiment.run(config, console)
        for seed in range(config.seeds):
            run = files.seed_folder(config.directory, "dto_kd", seed)
            epochs = files.read_metrics(run)
            # Metrics are means over the steps of an epoch, whose number is fixed.
            rates = [
                sum(e[f"train/gradient/dropped_rate/{name}"] for e in epochs)
                / len(epochs)
                for name in LOSSES
            ]
            shares = " | ".join(f"{rate:.0%}" for rate in (*rates, sum(rates)))
            print(f"| {noise:.0%} | {seed} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
