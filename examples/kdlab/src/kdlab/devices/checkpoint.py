"""Checkpoints by Orbax: asynchronous, atomic, restored to the placement they had."""

import contextlib
import dataclasses
import errno
import functools
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

import jax
import orbax.checkpoint as ocp

from kdlab.basics.reading import UserError, summary
from kdlab.devices.mesh import is_key

State = TypeVar("State")


@dataclasses.dataclass
class Position:
    """Position in a training, and sums of metrics over the epoch so far.

    The order of the examples is a function of seed and epoch, so this is all there is
    to say of the data.

    Attributes:
        epoch: Epochs that are complete.
        step: Steps done in the next one.
        sums: Sums over them of each metric.
        counted: Number of steps in the sums.
        seconds: Time spent on them.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    counted: int = 0
    seconds: float = 0.0


class Saver:
    """Saves states of a run by their number of steps, and restores the newest.

    A context manager: leaving it waits for a save in progress.
    """

    def __init__(self, directory: Path, *, keep: int = 2):
        """Opens the directory, which need not exist.

        Args:
            directory: Where the checkpoints of one run lie; the same for all processes.
            keep: Number of checkpoints that stay.
        """
        quiet_orbax()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._directory = directory
        self._manager = ocp.CheckpointManager(directory.resolve(), options=options)

    def __enter__(self) -> "Saver":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for what is being written."""
        with self._writing():
            self._manager.close()

    def save(self, steps: int, state: Any, position: Position) -> None:
        """Begins to write a state; does nothing if that one is there.

        The arrays are read before it returns, or kept from being overwritten.

        Args:
            steps: Number of steps done in all.
            state: The arrays.
            position: Where the training is.
        """
        if self._manager.latest_step() == steps:
            return
        arrays = ocp.args.StandardSave(_data(state))
        record = ocp.args.JsonSave(dataclasses.asdict(position))
        args = ocp.args.Composite(state=arrays, position=record)
        with self._writing():
            self._manager.save(steps, args=args)

    def wait(self) -> None:
        """Waits until everything is written."""
        with self._writing():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Names the folder where the texts of TensorStore do not."""
        try:
            yield
        except OSError as error:
            error.filename = error.filename or str(self._directory)
            raise
        except Exception as error:
            full = os.strerror(errno.ENOSPC)
            if full in str(error):
                raise OSError(errno.ENOSPC, full, str(self._directory)) from error
            raise UserError(
                f"{self._directory} cannot be written: {summary(error)}. The same "
                "command goes on from the last checkpoint."
            ) from error

    def restore(self, state: State) -> tuple[State, Position]:
        """Reads the newest complete checkpoint.

        Args:
            state: A state of the same structure, whose arrays are replaced and whose
                placement is kept.

        Returns:
            The restored state and its position; the given state and the beginning if
            there is none.

        Raises:
            ValueError: If the checkpoint is of another structure, or damaged.
        """
        steps = self._manager.latest_step()
        if steps is None:
            return state, Position()
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _data(state))
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(target), position=ocp.args.JsonRestore()
        )
        try:
            found = self._manager.restore(steps, args=args)
            arrays = jax.tree.map(_like, found["state"], state)
            return cast(State, arrays), Position(**found["position"])
        # Damaged files make Orbax raise almost anything.
        except Exception as error:
            earlier = [step for step in self._manager.all_steps() if step < steps]
            path = self._directory / str(steps)
            instead = f"remove {path} to go on from step {max(earlier, default=0)}, or "
            raise UserError(
                f"{path} holds no state of this training, but of another network, "
                f"method or version, or it is damaged ({summary(error)}): "
                f"{instead * bool(earlier)}choose another --name or --runs, or move "
                f"{self._directory.parent} away to begin anew."
            ) from error


@functools.cache
def quiet_orbax() -> None:
    """Keeps Orbax from printing what it raises as well, and from tracebacks behind it.

    It reads and writes all arrays side by side and closes its event loop at the first
    failure; the others then end in errors that nobody waits for. Whatever is not of
    Orbax is reported as before.
    """
    report = sys.unraisablehook

    def hook(event: Any) -> None:
        late = "Event loop is closed" in str(event.exc_value)
        if not (late or "_read_array_index" in repr(event.object)):
            report(event)

    sys.unraisablehook = hook
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    logging.getLogger("asyncio").addFilter(
        lambda record: "exception was never retrieved" not in record.getMessage()
    )


def _data(tree: Any) -> Any:
    return jax.tree.map(_plain, tree)


def _plain(x: jax.Array) -> jax.Array:
    """Random keys as the numbers that they are; Orbax knows no others."""
    return jax.random.key_data(x) if is_key(x) else x


def _like(x: jax.Array, old: jax.Array) -> jax.Array:
    if not is_key(old):
        return x
    return jax.random.wrap_key_data(x, impl=jax.random.key_impl(old))
