"""One training run: an epoch loop, metrics and checkpoints."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from examples.distill import checkpoint
from examples.distill.data import batches
from examples.distill.problem import Metrics, Problem, Split
from examples.distill.step import Step, TrainState, on_device

STEPS_IN_FLIGHT = 8  # an unbounded queue of steps may exhaust the devices' buffers


class Run(NamedTuple):
    """One training: which data, for how long, where it is written.

    Attributes:
        directory: Made if it is not there; holds ``metrics.jsonl`` (one line an
            epoch), ``checkpoints`` and, at the end, ``result.json``.
        train: Training images and labels.
        test: Test images and labels.
        epochs: Number of epochs.
        batch_size: Images in a step.
        checkpoint_seconds: Seconds between checkpoints.
        diagnose: Whether to look at the gradients after each epoch, and at the losses
            on the training set at the end.
    """

    directory: Path
    train: Split
    test: Split
    epochs: int
    batch_size: int
    checkpoint_seconds: float = 60.0
    diagnose: bool = True


def fit(
    run: Run, problem: Problem, step: Step, state: TrainState
) -> Iterator[dict[str, float]]:
    """Trains, yielding the metrics of each epoch; goes on where it was interrupted.

    A run ends with the first epoch in which a loss is not finite; its result then says
    ``diverged``, with that epoch, and holds the accuracies of those before.

    Args:
        run: What and where.
        problem: The losses.
        step: The compiled step of a method.
        state: The state before the first step.

    Yields:
        Metrics by name, with ``epoch`` from 1.
    """
    run.directory.mkdir(parents=True, exist_ok=True)
    log = run.directory / "metrics.jsonl"
    data, seed = on_device(run.train), int(state.seed)
    with checkpoint.Saver(run.directory / "checkpoints") as saver:
        state, first_epoch = saver.restore(state)
        history = _cut_history(log, first_epoch)
        saved = time.monotonic()
        for epoch in range(first_epoch, run.epochs):
            began, parts = time.monotonic(), []
            order = batches(len(data.labels), run.batch_size, seed=seed, epoch=epoch)
            for batch in order:
                state, metrics = step(state, data, problem.teacher, *batch)
                parts.append(metrics)
                if len(parts) > STEPS_IN_FLIGHT:
                    jax.block_until_ready(parts[-STEPS_IN_FLIGHT])
            record = {f"train/{key}": value for key, value in _mean(parts).items()}
            record |= {"epoch": epoch + 1, "seconds": time.monotonic() - began}
            if problem.teacher is not None and run.diagnose:
                seen = problem.probe(state, data, problem.teacher, *batch)
                record |= {f"gradient/{k}": float(v) for k, v in seen.items()}
            tested = problem.evaluate(state, run.test)
            record |= {f"test/{key}": value for key, value in tested.items()}
            history.append(record)
            with log.open("a") as file:
                file.write(json.dumps(record) + "\n")
            yield record
            values = [record[key] for key in record if key.startswith("train/loss/")]
            if not np.isfinite(values).all():
                result = {"diverged": epoch + 1, **summarize(history[:-1])}
                _write(run, result)
                return
            if time.monotonic() - saved > run.checkpoint_seconds:
                saver.save(epoch + 1, state)
                saved = time.monotonic()
        saver.save(run.epochs, state)
        result = summarize(history)
        if run.diagnose:
            train = problem.evaluate(state, run.train, with_teacher=True)
            result |= {f"train/{k}": v for k, v in train.items()}
        _write(run, result)


def _write(run: Run, result: dict[str, float]) -> None:
    (run.directory / "result.json").write_text(json.dumps(result, indent=2) + "\n")


def summarize(history: list[dict[str, float]]) -> dict[str, float]:
    """The numbers of a run, from its metrics: the last epoch and the best."""
    if not history:
        return {}
    best = max(history, key=lambda record: record["test/accuracy"])
    key = "gradient/conflict/distill"
    conflicts = [record[key] for record in history if key in record]
    return {
        "accuracy/last": history[-1]["test/accuracy"],
        "accuracy/best": best["test/accuracy"],
        "epoch/best": best["epoch"],
        "seconds": sum(record["seconds"] for record in history),
    } | ({"conflict_rate": float(np.mean(conflicts))} if conflicts else {})


def _mean(parts: list[Metrics]) -> dict[str, float]:
    return {key: float(np.mean([part[key] for part in parts])) for key in parts[0]}


def _cut_history(path: Path, epochs: int) -> list[dict[str, float]]:
    """Reads the lines up to the checkpoint and drops those behind it."""
    lines = path.read_text().splitlines()[:epochs] if path.exists() else []
    path.write_text("".join(line + "\n" for line in lines))
    return [json.loads(line) for line in lines]
