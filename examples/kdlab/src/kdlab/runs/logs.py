"""Writers of metrics to TensorBoard and Weights & Biases, if asked for."""

import contextlib
import importlib
import importlib.util
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from kdlab.runs import files

Record = dict[str, float]
Write = Callable[[Mapping[str, float], int], None]
"""Takes metrics by name and the number of steps that were done."""


class Report(NamedTuple):
    """Progress of a training: a step that the device has done.

    Attributes:
        epoch: From 0.
        step: From 1, within the epoch.
        steps: Number of steps of an epoch.
        metrics: Metrics of this step alone.
    """

    epoch: int
    step: int
    steps: int
    metrics: Record

    @property
    def done(self) -> int:
        """Number of steps since the training began."""
        return self.epoch * self.steps + self.step


_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


def check_installed(*, tensorboard: bool, wandb: bool) -> None:
    """Fails before a training, not in it, if a package that it logs to is missing.

    Args:
        tensorboard: Whether TensorBoard files are wanted.
        wandb: Whether Weights & Biases is wanted.

    Raises:
        ModuleNotFoundError: If so and its package is not there; says how to get it.
    """
    for option, wanted in (("tensorboard", tensorboard), ("wandb", wandb)):
        package = _PACKAGES[option]
        if wanted and importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f"--{option} needs the package {package}: pip install {package}, or "
                f"leave --{option} out; {files.METRICS} is written in any case."
            )


@contextlib.contextmanager
def writers(
    directory: Path, *, done: int, tensorboard: bool, wandb: bool
) -> Iterator[Write]:
    """Opens what was asked for, and closes it however the run ends.

    Args:
        directory: Folder of the run.
        done: Number of steps before this start; what was logged of later ones was lost
            with them, and is hidden.
        tensorboard: Whether to write TensorBoard files.
        wandb: Whether to log to Weights & Biases.

    Yields:
        A function that logs to all of them; to none if none is wanted.
    """
    with contextlib.ExitStack() as stack:
        opened: list[Write] = []
        if tensorboard:
            folder = directory / "tensorboard"
            opened.append(stack.enter_context(_tensorboard(folder, done)))
        if wandb:
            opened.append(stack.enter_context(_wandb(directory)))

        def write(metrics: Mapping[str, float], step: int) -> None:
            for one in opened:
                one(metrics, step)

        yield write


@contextlib.contextmanager
def _tensorboard(directory: Path, done: int) -> Iterator[Write]:
    from tensorboardX import SummaryWriter

    # A number of its own: the names end in seconds, and two starts may share one.
    number = len(list(directory.glob("*.tfevents.*")))
    writer = SummaryWriter(
        str(directory), purge_step=done + 1, filename_suffix=f".{number}"
    )

    def write(metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    try:
        yield write
    finally:
        writer.close()


@contextlib.contextmanager
def _wandb(directory: Path) -> Iterator[Write]:
    wandb = importlib.import_module("wandb")
    # The identity outlives a kill, so that a resumed run goes on in the same one.
    identity = directory / "wandb_id.txt"
    if not identity.exists():
        identity.write_text(uuid.uuid4().hex)
    session = wandb.init(
        project="kdopt",
        name="/".join(directory.parts[-3:]),
        id=identity.read_text(),
        resume="allow",
        dir=str(directory),
        config=files.read_settings(files.find_experiment(directory)),
    )
    try:
        # W&B keeps the first record of a step; a resumed run repeats it bit for bit.
        yield lambda metrics, step: session.log(dict(metrics), step=step)
    finally:
        session.finish()
