"""Checkpoints by Orbax: typed, atomic, restored into the state that made them."""

from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

import jax
import orbax.checkpoint as ocp

State = TypeVar("State")


class Saver:
    """Saves the state of a run by epoch and gives the newest one back.

    A context manager: leaving it waits for a save in progress.
    """

    def __init__(self, directory: Path, *, keep: int = 2):
        """Opens the directory, which need not exist.

        Args:
            directory: Where the checkpoints of one run lie.
            keep: Number of checkpoints that stay.
        """
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
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
        self._manager.close()

    def save(self, epoch: int, state: Any) -> None:
        """Writes the state after an epoch; does nothing if that one is there."""
        if self._manager.latest_step() != epoch:
            self._manager.save(epoch, args=ocp.args.StandardSave(state))
            self._manager.wait_until_finished()

    def restore(self, state: State) -> tuple[State, int]:
        """Reads the newest checkpoint.

        Args:
            state: A state of the same structure, whose arrays are replaced.

        Returns:
            The restored state and its epoch; the given state and 0 if there is none.
        """
        epoch = self._manager.latest_step()
        if epoch is None:
            return state, 0
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        restored = self._manager.restore(epoch, args=ocp.args.StandardRestore(target))
        return cast(State, restored), epoch
