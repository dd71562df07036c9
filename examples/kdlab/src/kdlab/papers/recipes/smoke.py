"""``--smoke``: runs the same code for seconds, at small sizes on synthetic images."""

import shutil
from pathlib import Path

from flax import nnx

from kdlab.devices import mesh
from kdlab.experiment.make import load_dataset
from kdlab.experiment.networks import make_teacher
from kdlab.models import weights
from kdlab.models.network import Network
from kdlab.settings.config import Config, configure

DOWNLOADED = ("cifar100", "tiny_imagenet", "imagenet2012")
DATASET = "synthetic-smoke"  # replaces them
PATCHES = "synthetic-smoke-patches"  # the same for transformers, two patches wide
FOLDER = "smoke"
IMAGES, BATCH = 8, 8


def shrink(config: Config) -> Config:
    """Shrinks an experiment to two epochs of one step and one block per stage.

    Args:
        config: The settings.

    Returns:
        The settings with small sizes, and with synthetic images in place of data sets
        that need a download; losses and methods are unchanged.
    """
    replaced = config.data.dataset in DOWNLOADED
    made = PATCHES if config.networks.student.startswith("deit") else DATASET
    return configure(
        config,
        name=f"{FOLDER}/{config.name}",
        dataset=made if replaced else config.data.dataset,
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


def write_untrained_teacher(config: Config) -> Path:
    """Writes initial weights of the teacher, so that loading them is tested as well.

    Args:
        config: The settings, with a teacher.

    Returns:
        The Orbax folder.
    """
    path = config.directory / "teacher"
    model = make_teacher(config, load_dataset(config.data))
    # Several processes write the replicated arrays together.
    network = mesh.make_layout().replicate(Network.of(model))
    weights.save_orbax(path, nnx.merge(*network))
    return path


def remove_earlier(config: Config) -> None:
    """Removes an earlier smoke run, which would otherwise be resumed; no other run."""
    if Path(config.name).parts[0] != FOLDER:
        return
    if mesh.is_first():
        shutil.rmtree(config.directory, ignore_errors=True)
    mesh.wait_for_all("the folder of the smoke run is empty")
