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
    """The training was asked to end, and has saved where it was."""


@contextlib.contextmanager
def watch() -> Iterator[Callable[[int], bool]]:
    """Delays SIGTERM and Ctrl-C until the training has saved.

    A second Ctrl-C ends it at once. Several processes agree on the step to save at, so
    each must ask at every step.

    Yields:
        A function of the number of steps done: whether to save and end now.

    Raises:
        TerminatedError: At the end, if a SIGTERM came.
        KeyboardInterrupt: The same after a Ctrl-C.
    """
    if jax.process_count() > 1:
        # JAX catches SIGTERM itself, and tells the other processes.
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda _: False  # Python delivers signals to the main thread alone
        return
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, before[signal.SIGINT])
            print("Saving; a second Ctrl-C ends at once.", file=sys.stderr, flush=True)

    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        with contextlib.suppress(TerminatedError):
            yield lambda _: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    # Also where it came after the last step, and the training had come to its end.
    if signal.SIGINT in came:
        raise KeyboardInterrupt
    if came:
        raise TerminatedError
