"""Trains one student: epochs, a measurement after each, and a result."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from kdlab.devices import interrupt, mesh
from kdlab.devices.checkpoint import Saver
from kdlab.runs import files, logs
from kdlab.train.loop import DivergedError, Loop, Run
from kdlab.train.problem import Problem
from kdlab.train.state import TrainState
from kdlab.train.step import Step


def fit(
    run: Run,
    problem: Problem,
    step: Step,
    state: TrainState,
    report: Callable[[logs.Report], None] = lambda _: None,
) -> Iterator[dict[str, float]]:
    """Trains, yielding the metrics of each epoch; resumes an interrupted training.

    Checkpoints may be at any step, and a resumed training is bit for bit the same as
    one without interruption. The first loss or update that is not finite ends the run;
    its result then holds ``diverged`` (the epoch), the step, and the accuracies of the
    epochs before. The last checkpoint holds a finite state.

    Args:
        run: The training.
        problem: The losses.
        step: The compiled training step of a method.
        state: The state before the first step.
        report: Called every `run.report_every` steps of an epoch.

    Yields:
        Metrics by name, with ``epoch`` from 1.

    Raises:
        ValueError: If the devices cannot share a batch.
        TerminatedError: After a SIGTERM, once the state is saved.
        KeyboardInterrupt: After a Ctrl-C, once the state is saved.
    """
    problem.layout.check_batch(run.batch_size)
    run.directory.mkdir(parents=True, exist_ok=True)
    seed, first = int(state.seed), mesh.is_first()
    with contextlib.ExitStack() as stack:
        stopped = stack.enter_context(interrupt.watch())
        saver = stack.enter_context(Saver(run.directory / files.CHECKPOINTS))
        state, position = saver.restore(state)
        history = files.cut_metrics(run.directory, position.epoch) if first else []
        write = stack.enter_context(
            logs.open_loggers(
                run.directory,
                done=position.epoch * run.steps + position.step,
                tensorboard=run.tensorboard and first,
                wandb=run.wandb and first,
            )
        )

        def tell(now: logs.Report) -> None:
            write({f"step/{key}": v for key, v in now.metrics.items()}, now.done)
            report(now)

        loop = Loop(run, problem, saver, position, tell, stopped)
        try:
            while loop.position.epoch < run.epochs:
                state = loop.epoch(step, state, seed)
                record = loop.means() | _measure(loop, problem, state, seed)
                history.append(record)
                if first:
                    files.append_metrics(run.directory, record)
                write(record, loop.position.epoch * run.steps + run.steps)
                loop.end_epoch(state)
                yield record
            saver.wait()
            result = summarize(history)
            if run.diagnose:
                train = problem.evaluate(state, run.train, with_teacher=True)
                result |= {f"train/{k}": v for k, v in train.items()}
        except DivergedError:
            where = {
                files.DIVERGED: loop.position.epoch + 1,
                "step": loop.position.step,
            }
            result = where | summarize(history)
        if first:
            files.write_result(run.directory, result)
    mesh.wait_for_all(f"{run.directory} is done")


def _measure(
    loop: Loop, problem: Problem, state: TrainState, seed: int
) -> dict[str, float]:
    """Measures the state after an epoch: test metrics and gradient diagnostics."""
    run, record = loop.run, {}
    if problem.teacher is not None and run.diagnose:
        last = loop.last(seed)
        seen = problem.probe(state, last.data, loop.teacher, *last[1:])
        record = {f"gradient/{k}": float(v) for k, v in seen.items()}
    tested = problem.evaluate(state, run.test)
    return record | {f"test/{key}": value for key, value in tested.items()}


def summarize(history: list[dict[str, float]]) -> dict[str, float]:
    """Summarizes the metrics of a run: its last and its best epoch."""
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
