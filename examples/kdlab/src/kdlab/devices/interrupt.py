"""Handles SIGTERM and Ctrl-C: finishes the step and saves."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils


class TerminatedError(Exception):
    """The training was told to stop, and has saved its state."""


@contextlib.contextmanager
def watch() -> Iterator[Callable[[int], bool]]:
    """Delays SIGTERM and Ctrl-C until the training has saved.

    A second Ctrl-C stops at once. Several processes agree on the step at which to save,
    so each must call the function at every step.

    Yields:
        A function from the number of completed steps to whether to save and stop now.

    Raises:
        TerminatedError: At the end, after a SIGTERM.
        KeyboardInterrupt: At the end, after a Ctrl-C.
    """
    if jax.process_count() > 1:
        # JAX catches SIGTERM itself and notifies the other processes.
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda _: False  # Python delivers signals to the main thread only
        return
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, before[signal.SIGINT])
            print("Saving; a second Ctrl-C stops at once.", file=sys.stderr, flush=True)

    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        with contextlib.suppress(TerminatedError):
            yield lambda _: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    # Even after the last step, when the training had already ended.
    if signal.SIGINT in received:
        raise KeyboardInterrupt
    if received:
        raise TerminatedError
