"""Objects of the golden images, and a tiny experiment on eight scenes."""

import dataclasses
import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress

from kdlab.data.detection.batch import Targets
from kdlab.detection.config import DetectConfig, shrink
from kdlab.detection.experiment import Experiment
from kdlab.detection.task import open_task

GOLDEN = Path(__file__).parent / "golden"
RUNS = Path(tempfile.mkdtemp())


def golden_targets():
    """The objects of the two images of the tiny ViDT, three and two."""
    golden = np.load(GOLDEN / "vidt_tiny.npz")
    boxes = [golden["target_boxes0"], golden["target_boxes1"]]
    padded = np.zeros((2, 3, 4))
    padded[0], padded[1, :2] = boxes
    labels = np.array([[2, 7, 2], [0, 9, 0]])
    present = np.array([[True] * 3, [True, True, False]])
    return Targets(*map(jnp.asarray, (padded, labels, present)))


def make_experiment(runs, **settings):
    """An experiment in a folder; the scenes are shared."""
    config = dataclasses.replace(
        shrink(DetectConfig(runs=runs)), smoke=True, name="tiny", **settings
    )
    (runs / "detection").mkdir(parents=True, exist_ok=True)
    progress = Progress(disable=True)
    return Experiment(open_task(config, progress), progress)


@functools.cache
def experiment():
    """The experiment of most tests, with a teacher that is trained at once."""
    return make_experiment(RUNS)


def arguments(one):
    """Parameters, batch, tokens and key of a step."""
    task = one.task
    batch = next(task.batches(task.part(None), 0, 0))
    return batch, one.teacher()(batch), jax.random.key(0)
