"""Notice that the machine wants its processor back, and let the step be finished."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


class TerminatedError(Exception):
    """The training was asked to end, and has saved where it was."""


@contextlib.contextmanager
def watch() -> Iterator[Callable[[int], bool]]:
    """Holds SIGTERM back while a training can still save itself.

    Several processes agree on the step to save at, so each must ask at every step.

    Yields:
        A function of the number of steps done: whether to save and end now.
    """
    if jax.process_count() > 1:
        # JAX catches the signal itself, and tells the other processes.
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda _: False  # Python delivers signals to the main thread alone
        return
    came = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield lambda _: came.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
