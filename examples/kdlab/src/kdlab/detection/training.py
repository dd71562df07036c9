"""The loop over the steps of one detector, resumable at any step."""

import contextlib
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from kdlab.data.detection.batch import DetectionBatch
from kdlab.data.detection.source import DetectionSource
from kdlab.detection.evaluation.coco_metrics import CocoMetrics, compute_metrics
from kdlab.detection.evaluation.predict import Scored, detect, select_best
from kdlab.detection.methods import Method, State
from kdlab.detection.networks import Detector, tokens_of
from kdlab.detection.task import Task
from kdlab.devices import interrupt, mesh
from kdlab.devices.checkpoint import Position, Saver
from kdlab.devices.mesh import Layout
from kdlab.runs import files
from kdlab.runs.logs import Record

STEPS_IN_FLIGHT = 8  # an unbounded queue of steps may exhaust device memory

Show = Callable[[int, str], None]
"""Takes the number of completed steps and a text."""


class Program(NamedTuple):
    """The compiled functions of one method; they serve all seeds.

    Attributes:
        init: Maps parameters to a state.
        step: See :class:`kdlab.detection.methods.Method`.
        measure: Measures the gradients of two losses; None: there is one loss.
        predict: Detects the objects of a batch.
    """

    init: Callable[[Any], State]
    step: Callable[..., tuple[State, dict[str, jax.Array]]]
    measure: Callable[..., dict[str, jax.Array]] | None
    predict: Callable[[Any, DetectionBatch], Scored]


def compile_method(
    method: Method, measure: Callable[..., dict] | None, predict: Callable[..., Scored]
) -> Program:
    """Compiles what depends on the method; the rest is given compiled."""
    step = jax.jit(method.step, donate_argnums=0)
    return Program(jax.jit(method.init), step, measure, predict)


def compile_predict(detector: Detector) -> Callable[[Any, DetectionBatch], Scored]:
    """Compiles the detection of the objects of a batch."""

    def predict(params: Any, batch: DetectionBatch) -> Scored:
        return select_best(detector.detect(params["network"], batch))

    return jax.jit(predict)


class Run(NamedTuple):
    """One training.

    Attributes:
        directory: Its folder, created if necessary.
        source: The training images.
        steps: Number of steps.
        seed: Seed of order, augmentation and dropout.
        tokens: Maps a batch to the tokens of the teacher; None: there is no teacher.
    """

    directory: Path
    source: DetectionSource
    steps: int
    seed: int
    tokens: Callable[[DetectionBatch], Any] | None


class DivergedError(Exception):
    """A loss was not finite."""


def train(
    run: Run, task: Task, program: Program, params: Any, layout: Layout, show: Show
) -> State:
    """Trains a detector, or resumes; writes metrics, checkpoints and result.

    Args:
        run: The training.
        task: The images.
        program: The compiled functions of the method.
        params: Initial parameters.
        layout: Placement of arrays.
        show: Called every few steps.

    Returns:
        The state at the end.

    Raises:
        ValueError: If the devices cannot share a batch.
        TerminatedError: After a SIGTERM, once the state is saved.
        KeyboardInterrupt: After a Ctrl-C, once the state is saved.
    """
    layout.check_batch(task.config.batch_size)
    run.directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stopped = stack.enter_context(interrupt.watch())
        saver = stack.enter_context(Saver(run.directory / files.CHECKPOINTS, keep=1))
        state = layout.place(program.init(layout.place(params)))
        state, position = saver.restore(state)
        files.cut_metrics(run.directory, position.epoch)
        loop = _Loop(run, task, program, layout, saver, show)
        result: dict[str, float] = {}
        try:
            state = loop.run_from(state, position, stopped)
            if records := files.read_metrics(run.directory):
                result = {k: v for k, v in records[-1].items() if k.startswith("coco/")}
        except DivergedError:
            result = {files.DIVERGED: 1.0}
        saver.wait()
        files.write_result(run.directory, result)
    return state


class _Loop:
    """The steps of a training."""

    def __init__(
        self,
        run: Run,
        task: Task,
        program: Program,
        layout: Layout,
        saver: Saver,
        show: Show,
    ):
        self._run, self._task, self._program = run, task, program
        self._layout, self._saver, self._show = layout, saver, show
        self._waiting: deque[tuple[int, dict[str, jax.Array]]] = deque()
        self._latest: Record = {}
        self._lines = 0

    def run_from(
        self, state: State, position: Position, stopped: Callable[[int], bool]
    ) -> State:
        """Trains to the end from a position, whose ``epoch`` counts metrics' lines."""
        run, config = self._run, self._task.config
        self._lines, done = position.epoch, position.step
        key = jax.random.key(run.seed)
        marks = evaluation_steps(run.steps, config.evaluations)
        saved = time.monotonic()
        batches = self._task.batches(run.source, run.seed, done)
        while done < run.steps:
            host = next(batches)
            given = None if run.tokens is None else run.tokens(host)
            batch, tokens = self._layout.divide((host, given))
            arguments = batch, tokens, jax.random.fold_in(key, done)
            # Before the step, which overwrites the parameters.
            seen = self._measure(done, state, arguments)
            state, metrics = self._program.step(state, *arguments)
            done += 1
            self._waiting.append((done, metrics | seen))
            if len(self._waiting) > STEPS_IN_FLIGHT or seen or done in marks:
                self._settle(keep=0 if seen or done in marks else STEPS_IN_FLIGHT)
            if done in marks:
                self._evaluate(state, done)
            late = time.monotonic() - saved >= config.checkpoint_seconds
            if (now := stopped(done)) or late or done == run.steps:
                self._settle(keep=0)
                self._saver.save(done, state, Position(self._lines, done))
                saved = time.monotonic()
            if now and done < run.steps:
                raise interrupt.TerminatedError
        return state

    def _measure(self, done: int, state: State, arguments: tuple) -> dict[str, Any]:
        measure = self._program.measure
        if measure is None or done % self._task.config.measure_every:
            return {}
        return measure(state.params, *arguments)

    def _settle(self, keep: int) -> None:
        """Waits for steps until some are left; writes what was measured with them."""
        while len(self._waiting) > keep:
            done, metrics = self._waiting.popleft()
            seen = {k: float(v) for k, v in jax.device_get(metrics).items()}
            losses = [v for k, v in seen.items() if k.startswith("loss/")]
            if not np.isfinite(losses).all():
                raise DivergedError
            self._latest = seen
            if any(key.startswith("gradient/") for key in seen):
                self._write({"step": done, **seen})
            self._show(done, _describe(seen))

    def _evaluate(self, state: State, done: int) -> None:
        found = evaluate(self._task, self._program, state.params, self._layout)
        numbers = {f"coco/{k}": v for k, v in found._asdict().items()}
        self._write({"step": done, **self._latest, **numbers})

    def _write(self, record: Record) -> None:
        if mesh.is_first():
            files.append_metrics(self._run.directory, record)
        self._lines += 1


def evaluate(task: Task, program: Program, params: Any, layout: Layout) -> CocoMetrics:
    """Computes the twelve numbers of COCO on the images to evaluate on."""
    results = predict_all(task, program, params, layout, lambda _: None)
    return compute_metrics(task.val.ground_truth(), results, scale=task.scale)


def predict_all(
    task: Task,
    program: Program,
    params: Any,
    layout: Layout,
    note: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Detects the objects of all images to evaluate on; see ``predict.detect``."""

    def predict(batch: DetectionBatch) -> Scored:
        return program.predict(params, layout.divide(batch))

    return detect(predict, task.once(task.val), task.val, note)


def evaluation_steps(steps: int, evaluations: int) -> set[int]:
    """Returns the steps after which to evaluate, evenly spaced up to the last.

    Examples:
        >>> sorted(evaluation_steps(10, 3))
        [3, 7, 10]
    """
    return {round(steps * i / evaluations) for i in range(1, evaluations + 1)}


def _describe(metrics: Record) -> str:
    return ", ".join(
        f"{key.split('/')[1]} {value:.3g}"
        for key, value in metrics.items()
        if key.startswith("loss/")
    )


def teacher_tokens(
    detector: Detector, params: Any, layout: Layout
) -> Callable[[DetectionBatch], Any]:
    """Returns a compiled function from a batch to the tokens of a teacher."""
    compiled = jax.jit(lambda p, batch: tokens_of(detector.detect(p, batch)))
    placed = layout.place(params)
    return lambda batch: compiled(placed, layout.divide(batch))
