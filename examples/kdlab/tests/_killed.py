"""A training run that is killed: ``python _killed.py PLAN...``.

Each PLAN is DIRECTORY:WHEN. A training run in the directory starts or resumes. If WHEN
is ``end`` its final parameters are written to DIRECTORY.npz and the next plan follows;
with ``stepN`` or ``writeN`` the process kills itself before step N, or in the middle of
the first checkpoint of step N or later.
"""

import os
import signal
import sys
import threading
from pathlib import Path

import jax
import numpy as np

from _students import fitted, students
from kdlab.devices.checkpoint import Saver


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_write(directory, number):
    """Waits for a folder that Orbax has not renamed yet."""
    while True:
        for path in (directory / "checkpoints").glob("*.orbax-checkpoint-tmp"):
            if int(path.name.split(".")[0]) >= number:
                kill()


def killed_at(when):
    """Wraps a step so that it kills the process at the planned step."""

    def wrap(step):
        def wrapped(state, *args):
            if when == f"step{int(state.step)}":
                kill()
            return step(state, *args)

        return wrapped

    return wrap


def main():
    pupils = students(checkpoint_seconds=0, ema=0.9)
    for plan in sys.argv[1:]:
        directory, when = plan.rsplit(":", 1)
        if when.startswith("write"):
            arguments = Path(directory), int(when.removeprefix("write"))
            threading.Thread(target=kill_in_write, args=arguments, daemon=True).start()
        fitted(pupils, Path(directory), "dto_kd", wrap=killed_at(when))
        with Saver(Path(directory) / "checkpoints") as saver:
            state, _ = saver.restore(pupils.state(pupils.plan("dto_kd"), 0))
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
        np.savez(f"{directory}.npz", *leaves)


if __name__ == "__main__":
    main()
