"""Orbax checkpoints: asynchronous, atomic, restored with their placement."""

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

from kdlab.basics.reading import UserError, summarize
from kdlab.devices.mesh import is_key

State = TypeVar("State")


@dataclasses.dataclass
class Position:
    """Position in a training, with sums of metrics over the current epoch.

    The order of the examples is a function of seed and epoch, so this also determines
    the position in the data.

    Attributes:
        epoch: Number of completed epochs.
        step: Number of completed steps of the current epoch.
        sums: Sum of each metric over these steps.
        counted: Number of steps in the sums.
        seconds: Time spent on these steps.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    counted: int = 0
    seconds: float = 0.0


class Saver:
    """The checkpoints of a run: saves states and restores the newest.

    A context manager that waits at its end for a save in progress.
    """

    def __init__(self, directory: Path, *, keep: int = 2):
        """Opens the directory, which need not exist.

        Args:
            directory: Folder of the checkpoints of one run; the same in all processes.
            keep: Number of checkpoints to keep.
        """
        silence_orbax()
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
        """Waits for a save in progress."""
        with self._writing():
            self._manager.close()

    def save(self, steps: int, state: Any, position: Position) -> None:
        """Starts writing a state, unless it is already saved.

        The arrays may be overwritten or donated as soon as this returns.

        Args:
            steps: Total number of completed steps.
            state: The arrays.
            position: Position in the training.
        """
        if self._manager.latest_step() == steps:
            return
        arrays = ocp.args.StandardSave(_data(state))
        record = ocp.args.JsonSave(dataclasses.asdict(position))
        args = ocp.args.Composite(state=arrays, position=record)
        with self._writing():
            self._manager.save(steps, args=args)

    def wait(self) -> None:
        """Waits until all saves are complete."""
        with self._writing():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Adds the folder to errors of TensorStore that do not name it."""
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
                f"{self._directory} cannot be written: {summarize(error)}. The same "
                "command resumes from the last checkpoint."
            ) from error

    def restore(self, state: State) -> tuple[State, Position]:
        """Reads the newest complete checkpoint.

        Args:
            state: A state of the same structure; its arrays are replaced and its
                placement is kept.

        Returns:
            The restored state and its position, or the given state and position 0 if
            there is no checkpoint.

        Raises:
            ValueError: If the checkpoint has another structure or is damaged.
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
        # On damaged files Orbax raises almost anything.
        except Exception as error:
            earlier = [step for step in self._manager.all_steps() if step < steps]
            path = self._directory / str(steps)
            instead = (
                f"remove {path} to resume from step {max(earlier, default=0)}, or "
            )
            raise UserError(
                f"{path} does not match this training: it holds another network, "
                f"method or version, or is damaged ({summarize(error)}): "
                f"{instead * bool(earlier)}choose another --name or --runs, or move "
                f"{self._directory.parent} away to start again."
            ) from error


@functools.cache
def silence_orbax() -> None:
    """Keeps Orbax from also printing the errors that it raises.

    Orbax reads and writes all arrays concurrently and closes its event loop at the
    first failure; the others then fail with errors that nobody awaits. Errors from
    elsewhere are reported as before.
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
    """Returns the data of random keys, which Orbax cannot store; other arrays as is."""
    return jax.random.key_data(x) if is_key(x) else x


def _like(x: jax.Array, old: jax.Array) -> jax.Array:
    if not is_key(old):
        return x
    return jax.random.wrap_key_data(x, impl=jax.random.key_impl(old))
