"""Logs metrics to TensorBoard and Weights & Biases, and reads the former back."""

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
"""Takes metrics by name and the number of completed steps."""


class Report(NamedTuple):
    """A completed step of a training.

    Attributes:
        epoch: Index of the epoch, from 0.
        step: Number of the step within the epoch, from 1.
        steps: Number of steps per epoch.
        metrics: Metrics of this step.
    """

    epoch: int
    step: int
    steps: int
    metrics: Record

    @property
    def done(self) -> int:
        """Number of completed steps since the beginning of the training."""
        return self.epoch * self.steps + self.step


_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


def check_installed(*, tensorboard: bool, wandb: bool) -> None:
    """Fails before a training starts if a package that it needs for logs is missing.

    Args:
        tensorboard: Whether TensorBoard files are requested.
        wandb: Whether Weights & Biases is requested.

    Raises:
        ModuleNotFoundError: If its package is missing; the message says how to get it.
    """
    for option, wanted in (("tensorboard", tensorboard), ("wandb", wandb)):
        package = _PACKAGES[option]
        if wanted and importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f"--{option} needs the package {package}: pip install {package}, or "
                f"leave --{option} out; {files.METRICS} is always written."
            )


@contextlib.contextmanager
def open_loggers(
    directory: Path, *, done: int, tensorboard: bool, wandb: bool
) -> Iterator[Write]:
    """Opens the requested loggers, and closes them however the run ends.

    Args:
        directory: Folder of the run.
        done: Number of steps before this start; logs of later steps, which an
            interruption lost, are hidden.
        tensorboard: Whether to write TensorBoard files.
        wandb: Whether to log to Weights & Biases.

    Yields:
        A function that logs to all of them.
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

    # Names have a resolution of a second, so two starts need distinct suffixes.
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


def read_tensorboard(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Reads what TensorBoard shows of a folder that `--tensorboard` filled.

    Args:
        directory: The folder `tensorboard` of a run.

    Returns:
        Pairs of step and value by metric, without those that an interruption lost.
    """
    from tensorboardX.proto.event_pb2 import Event  # pyrefly: ignore

    shown: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(directory.glob("*.tfevents.*")):
        data, position = path.read_bytes(), 0
        while position < len(data):
            # Length, its checksum, the event, its checksum.
            length = int.from_bytes(data[position : position + 8], "little")
            if len(data) < position + 12 + length + 4:
                break  # the writer was killed
            event = Event.FromString(data[position + 12 :][:length])
            position += 12 + length + 4
            if event.HasField("session_log"):  # a start, which hides later steps
                for name, points in shown.items():
                    shown[name] = [x for x in points if x[0] < event.step]
            for value in event.summary.value:
                points = shown.setdefault(value.tag, [])
                points.append((event.step, value.simple_value))
    return shown


@contextlib.contextmanager
def _wandb(directory: Path) -> Iterator[Write]:
    wandb = importlib.import_module("wandb")
    # The id survives a kill, so that a resumed run continues the same W&B run.
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
        # W&B keeps the first record of a step; a resumed run repeats it exactly.
        yield lambda metrics, step: session.log(dict(metrics), step=step)
    finally:
        session.finish()
