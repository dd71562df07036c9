"""``--smoke``: the same code at sizes of seconds, on synthetic images."""

import shutil
from pathlib import Path

from flax import nnx

from kdlab.data import load
from kdlab.devices import mesh
from kdlab.experiment.networks import make_teacher
from kdlab.models import weights
from kdlab.models.network import Network
from kdlab.settings.config import Config, configure

DOWNLOADED = ("cifar100", "tiny_imagenet", "imagenet2012")
DATASET = "synthetic-smoke"  # instead of those
FOLDER = "smoke"
IMAGES, BATCH = 8, 8


def shrink(config: Config) -> Config:
    """Two epochs of a step, networks of one block a stage; losses and methods stay.

    Args:
        config: Any settings.

    Returns:
        The same with every size small, and synthetic images for those that need a
        download.
    """
    replaced = config.data.dataset in DOWNLOADED
    return configure(
        config,
        name=f"{FOLDER}/{config.name}",
        dataset=DATASET if replaced else config.data.dataset,
        labels=None if replaced else IMAGES,
        batch_size=BATCH,
        accumulate=2 if config.training.accumulate > 1 else 1,
        max_blocks=1,
        batch_norm_group=None
        if config.networks.batch_norm_group is None
        else BATCH // 2,
        epochs=2,
        teacher_epochs=1,
        decay_epochs=config.training.decay_epochs and (1,),
        warmup_epochs=min(config.training.warmup_epochs, 0.5),
        loss_warmup=config.distillation.loss_warmup and 1.0,
        seeds=1,
        timing_rounds=0,
    )


def untrained_teacher(config: Config) -> Path:
    """Writes initial weights, so that loading a teacher is run too.

    Args:
        config: The settings, with a teacher.

    Returns:
        The Orbax folder.
    """
    path = config.directory / "teacher"
    model = make_teacher(config, load(config.data.dataset))
    # Several processes write together what they all have.
    network = mesh.make_layout().replicate(Network.of(model))
    weights.save_orbax(path, nnx.merge(*network))
    return path


def clear(config: Config) -> None:
    """Removes an earlier smoke run, which would be resumed; never another run."""
    if Path(config.name).parts[0] != FOLDER:
        return
    if mesh.is_first():
        shutil.rmtree(config.directory, ignore_errors=True)
    mesh.wait_for_all("the folder of the smoke run is empty")
