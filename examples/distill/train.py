"""One training run: an epoch loop, metrics and checkpoints."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from examples.distill import checkpoint, logs
from examples.distill.data import batches, num_batches
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
        report_every: Steps between reports within an epoch.
        tensorboard: Whether to write TensorBoard files too.
        wandb: Whether to log to Weights & Biases too.
    """

    directory: Path
    train: Split
    test: Split
    epochs: int
    batch_size: int
    checkpoint_seconds: float = 60.0
    diagnose: bool = True
    report_every: int = 10
    tensorboard: bool = False
    wandb: bool = False


def fit(
    run: Run,
    problem: Problem,
    step: Step,
    state: TrainState,
    report: Callable[[logs.Report], None] = lambda _: None,
) -> Iterator[dict[str, float]]:
    """Trains, yielding the metrics of each epoch; goes on where it was interrupted.

    A run ends with the first epoch in which a loss is not finite; its result then says
    ``diverged``, with that epoch, and holds the accuracies of those before.

    Args:
        run: What and where.
        problem: The losses.
        step: The compiled step of a method.
        state: The state before the first step.
        report: Called within an epoch, every `run.report_every` steps.

    Yields:
        Metrics by name, with ``epoch`` from 1.
    """
    run.directory.mkdir(parents=True, exist_ok=True)
    log = run.directory / logs.JSON_LINES
    data, seed = on_device(run.train), int(state.seed)
    steps = num_batches(len(data.labels), run.batch_size)
    with contextlib.ExitStack() as stack:
        saver = stack.enter_context(checkpoint.Saver(run.directory / "checkpoints"))
        state, first_epoch = saver.restore(state)
        history = logs.cut_json_lines(log, first_epoch)
        write = stack.enter_context(
            logs.writers(
                run.directory,
                done=first_epoch * steps,
                tensorboard=run.tensorboard,
                wandb=run.wandb,
            )
        )
        saved = time.monotonic()
        for epoch in range(first_epoch, run.epochs):
            began, parts = time.monotonic(), []
            order = batches(len(data.labels), run.batch_size, seed=seed, epoch=epoch)
            for batch in order:
                state, metrics = step(state, data, problem.teacher, *batch)
                parts.append(metrics)
                ready = len(parts) - STEPS_IN_FLIGHT
                if ready > 0:
                    jax.block_until_ready(parts[ready - 1])
                if ready > 0 and ready % run.report_every == 0:
                    # Of a step that is done: reading it waits for nothing.
                    seen = {key: float(v) for key, v in parts[ready - 1].items()}
                    now = logs.Report(epoch, ready, steps, seen)
                    write({f"step/{key}": v for key, v in seen.items()}, now.done)
                    report(now)
            record = {f"train/{key}": value for key, value in _mean(parts).items()}
            record |= {"epoch": epoch + 1, "seconds": time.monotonic() - began}
            if problem.teacher is not None and run.diagnose:
                seen = problem.probe(state, data, problem.teacher, *batch)
                record |= {f"gradient/{k}": float(v) for k, v in seen.items()}
            tested = problem.evaluate(state, run.test)
            record |= {f"test/{key}": value for key, value in tested.items()}
            history.append(record)
            logs.append_json_line(log, record)
            write(record, (epoch + 1) * steps)
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
