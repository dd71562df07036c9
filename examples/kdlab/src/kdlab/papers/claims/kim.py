"""Claims of Kim et al.: the decrease is the predicted parabola in lambda."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kdopt
from kdlab.minima import kim, restore
from kdlab.minima.measure import training_losses
from kdlab.papers.claims.evidence import (
    CONFIRMED,
    REFUTED,
    Claim,
    Finding,
    judge,
    judge_ratio,
)
from kdlab.papers.claims.trials import Trial

PAPER = "Kim et al."
LAMBDAS = np.linspace(0, 1, 11)
RATES = (1e-2, 1e-3, 1e-4)
ALLOWED = 0.01  # error relative to the largest decrease, at the smallest rate
EXPECTED = {"acute": 0.364, "obtuse": 1.0}
SAMPLE = 100_000


def judge_claims(setting: str, trial: Trial, arm: str = "kd") -> Iterator[Claim]:
    """Judges the parabola under one setting, before and after training."""
    for moment in ("start", "end"):
        errors = np.array(
            [
                measure_errors(trial, arm, seed, trained=moment == "end")
                for seed in range(trial.experiment.config.seeds)
            ]
        )
        yield Claim(
            PAPER,
            f"the decrease over lambda is as predicted to first order, at the {moment}",
            setting,
            [
                judge(
                    f"{ALLOWED:.0%} - error at rate {RATES[-1]:g}:",
                    100 * (ALLOWED - errors[:, -1]),
                    unit=" %",
                ),
                judge_ratio(
                    f"error at rate {RATES[-1]:g} against {RATES[-2]:g}",
                    errors[:, -1],
                    errors[:, -2],
                ),
            ],
            [
                "errors "
                + ", ".join(
                    f"{100 * e:.3g} % at {rate:g}"
                    for rate, e in zip(RATES, errors.mean(0), strict=True)
                )
            ],
        )


def judge_vertices(done: dict[str, Trial], arm: str = "kd") -> Claim:
    """Judges the position of the vertex for random gradients; reports real ones too.

    Args:
        done: Trials by setting.
        arm: Arm whose gradients are reported.
    """
    context = []
    for setting, trial in done.items():
        vertex = trial.histories[arm]["gradient/lambda/vertex"]
        inside = (vertex > 0) & (vertex < 1)
        share = f"{inside.mean():.0%} of probed batches"
        context.append(f"{setting} labels, {arm}: {share}")
    return Claim(
        PAPER,
        "the decrease is smallest inside (0, 1) for some acute and all obtuse angles",
        "random gradients",
        [_share(kind) for kind in EXPECTED],
        context,
    )


def measure_errors(trial: Trial, arm: str, seed: int, *, trained: bool) -> list[float]:
    r"""Measures how far the decrease of the weighted loss is from its parabola.

    .. math:: \max_\lambda \Big| \frac{L_\lambda(\theta) - L_\lambda(\theta - \eta
        u_\lambda)}{\eta} - D(\lambda) \Big| \Big/ \max_\lambda D(\lambda)

    This is done in double precision and evaluation mode, on all training images of the
    student.

    Args:
        trial: Trial of the student.
        arm: Arm of the student.
        seed: Seed of the student.
        trained: Whether to measure after the training rather than before it.

    Returns:
        One error for each rate in RATES.
    """
    if trained and "diverged" in trial.results[arm][seed]:
        return [float("nan")] * len(RATES)
    experiment = trial.experiment
    network = restore.restore_student(
        experiment, trial.plans[arm], arm, seed, trained=trained
    )
    both, data = training_losses(
        network,
        experiment.teacher_network,
        experiment.data(seed),
        experiment.dataset,
        temperature=experiment.config.distillation.temperature,
    )
    with jax.enable_x64(True):
        return compute_errors(both, _wide(network.params), _wide(data))


def compute_errors(both: Any, params: Any, data: Any) -> list[float]:
    """Measures the same for any two losses of parameters and a batch, ``[2]``."""

    @jax.jit
    def total(params: Any) -> jax.Array:
        parts = [share * both(params, batch) for share, batch in data]
        return jnp.sum(jnp.stack(parts), axis=0)

    here = total(params)
    rows = jax.jacrev(total)(params)
    grads = tuple(jax.tree.map(lambda row, i=i: row[i], rows) for i in range(2))
    gram = kdopt.gram(grads)
    predicted = np.asarray(kdopt.loss_decrease(gram, jnp.asarray(LAMBDAS)))
    errors = []
    for rate in RATES:
        seen = []
        for share in LAMBDAS:
            weights = jnp.array([1 - share, share])
            step = kdopt.combine(grads, -rate * weights)
            there = total(jax.tree.map(jnp.add, params, step))
            seen.append(float(weights @ (here - there)) / rate)
        errors.append(float(np.abs(seen - predicted).max() / predicted.max()))
    return errors


def _share(kind: str) -> Finding:
    """Tests if the share of inner vertices is as expected within sampling error."""
    grams, _ = kim.sample_grams(jax.random.key(0), SAMPLE, kim.ANGLES[kind])
    share, expected = kim.interior_share(grams), EXPECTED[kind]
    error = 4 * np.sqrt(expected * (1 - expected) / SAMPLE) + 5e-4
    verdict = CONFIRMED if abs(share - expected) <= error else REFUTED
    return Finding(
        f"{kind}: {share:.1%} of {SAMPLE:,}, expected {expected:.1%}", verdict
    )


def _wide(tree: Any) -> Any:
    """Casts floating-point arrays to double precision."""

    def leaf(x: Any) -> Any:
        real = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)
        return x.astype(jnp.float64) if real else x

    return jax.tree.map(leaf, tree)
