"""The loop over the steps of an epoch, resumable at any step."""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from kdlab.data import num_batches
from kdlab.data.feed import Feed, StepInputs, Stream
from kdlab.data.split import Split
from kdlab.devices import interrupt, mesh
from kdlab.devices.checkpoint import Position, Saver
from kdlab.models.network import CachedLogits
from kdlab.runs import logs
from kdlab.train.evaluate import Metrics
from kdlab.train.problem import Problem
from kdlab.train.state import TrainState
from kdlab.train.step import Step

STEPS_IN_FLIGHT = 8  # an unbounded queue of steps may exhaust device memory
STEPS_TO_AGREE = 32  # steps after which several processes agree on whether to save


class Run(NamedTuple):
    """One training: its data, its length and its folder.

    Attributes:
        directory: Created if necessary; holds ``metrics.jsonl`` (one line per epoch),
            ``checkpoints`` and, at the end, ``result.json``.
        train: Training images and labels.
        test: Test images and labels.
        epochs: Number of epochs.
        batch_size: Images per step.
        checkpoint_seconds: Seconds between checkpoints; at the end of an epoch, where
            the least work would be lost, a tenth of it is enough.
        diagnose: Whether to diagnose the gradients after each epoch, and to evaluate
            on the training set at the end.
        report_every: Steps between reports within an epoch.
        tensorboard: Whether to write TensorBoard files as well.
        wandb: Whether to log to Weights & Biases as well.
        skip_nonfinite: Whether steps that are not finite are skipped; see
            :func:`~kdlab.train.step.train_step`.
        repeats: Times that an image is drawn in an epoch.
        cached_logits: Logits of the teacher on the training images, used instead of
            running it.
    """

    directory: Path
    train: Split | Stream
    test: Split | Stream
    epochs: int
    batch_size: int
    checkpoint_seconds: float = 60.0
    diagnose: bool = True
    report_every: int = 10
    tensorboard: bool = False
    wandb: bool = False
    skip_nonfinite: bool = False
    repeats: int = 1
    cached_logits: CachedLogits | None = None

    @property
    def steps(self) -> int:
        """Number of steps per epoch."""
        return num_batches(self.train.size, self.batch_size)


class DivergedError(Exception):
    """A loss or an update was not finite."""


class Loop:
    """The steps of a training: tracks the position, saves and reports."""

    position: Position

    def __init__(
        self,
        run: Run,
        problem: Problem,
        saver: Saver,
        position: Position,
        tell: Callable[[logs.Report], None],
        stopped: Callable[[int], bool],
    ):
        """Starts at a position.

        Args:
            run: The training.
            problem: The losses.
            saver: Writer of the checkpoints.
            position: Position of the state that is passed to :meth:`epoch`.
            tell: Called every `run.report_every` steps.
            stopped: Maps the number of completed steps to whether to save and stop.
        """
        self.run, self.position = run, position
        self._problem, self._saver = problem, saver
        self._tell, self._stopped = tell, stopped
        self._saved = time.monotonic()
        self._waiting: deque[Metrics] = deque()
        self._feed = Feed(run.train, problem.layout, run.batch_size, run.repeats)
        self._last: StepInputs | None = None
        self.teacher = run.cached_logits or problem.teacher

    def epoch(self, step: Step, state: TrainState, seed: int) -> TrainState:
        """Trains to the end of the epoch.

        Raises:
            DivergedError: At a step that is not finite, unless such steps are skipped.
            TerminatedError: If the training was told to stop; the state is saved.
        """
        run, position = self.run, self.position
        began = time.monotonic() - position.seconds
        for fed in self._feed.epoch(seed, position.epoch, position.step):
            state, metrics = step(state, fed.data, self.teacher, *fed[1:])
            self._last = fed
            self._waiting.append(metrics)
            if len(self._waiting) > STEPS_IN_FLIGHT:
                self._settle()
            done = position.step + len(self._waiting)
            stopped = self._stopped(position.epoch * run.steps + done)
            if stopped or (done < run.steps and self._due(done)):
                self._drain()
                position.seconds = time.monotonic() - began
                self.save(state)
            if stopped:
                raise interrupt.TerminatedError
        self._drain()
        position.seconds = time.monotonic() - began
        return state

    def last(self, seed: int) -> StepInputs:
        """Returns the last batch of the epoch."""
        if self._last is None:  # resumed after it
            self._last = next(
                self._feed.epoch(seed, self.position.epoch, self.run.steps - 1)
            )
        return self._last

    def save(self, state: TrainState) -> None:
        """Starts writing a checkpoint."""
        position = self.position
        done = position.epoch * self.run.steps + position.step
        self._saver.save(done, state, position)
        self._saved = time.monotonic()

    def end_epoch(self, state: TrainState) -> None:
        """Advances to the next epoch, and saves unless that was just done.

        Raises:
            TerminatedError: If the training was told to stop; the state is saved.
        """
        epoch = self.position.epoch + 1
        self.position = Position(epoch)
        stopped = self._stopped(epoch * self.run.steps + 1)
        late = self._elapsed(self.run.checkpoint_seconds / 10)
        if late or stopped or epoch == self.run.epochs:
            self.save(state)
        if stopped and epoch < self.run.epochs:
            raise interrupt.TerminatedError

    def means(self) -> dict[str, float]:
        """Returns the metrics of the epoch, averaged over its finite steps.

        Raises:
            DivergedError: If no step was finite.
        """
        position = self.position
        if not position.counted:
            raise DivergedError
        out = {f"train/{k}": v / position.counted for k, v in position.sums.items()}
        if self.run.skip_nonfinite:
            out["train/skipped"] = float(position.step - position.counted)
        return out | {"epoch": position.epoch + 1, "seconds": position.seconds}

    def _drain(self) -> None:
        while self._waiting:
            self._settle()

    def _settle(self) -> None:
        """Waits for the oldest step and adds its metrics."""
        seen = {k: float(v) for k, v in jax.device_get(self._waiting.popleft()).items()}
        position, run = self.position, self.run
        position.step += 1
        losses = [value for key, value in seen.items() if key.startswith("loss/")]
        if not (seen.pop("finite", 1.0) and np.isfinite(losses).all()):
            if not run.skip_nonfinite:
                raise DivergedError
            return
        for key, value in seen.items():
            position.sums[key] = position.sums.get(key, 0.0) + value
        position.counted += 1
        if position.step % run.report_every == 0:
            self._tell(logs.Report(position.epoch, position.step, run.steps, seen))

    def _due(self, done: int) -> bool:
        if jax.process_count() > 1:
            if done % STEPS_TO_AGREE:
                return False
            self._drain()
        return self._elapsed(self.run.checkpoint_seconds)

    def _elapsed(self, seconds: float) -> bool:
        return mesh.broadcast(time.monotonic() - self._saved >= seconds)
