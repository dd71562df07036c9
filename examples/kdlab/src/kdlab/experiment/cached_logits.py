"""Caches the logits of a teacher that sees the same images in every epoch."""

import jax
import jax.numpy as jnp
import numpy as np

from kdlab.data import Dataset, is_streamed, normalize
from kdlab.data.augmentation.mixing import Mixing
from kdlab.data.feed import iterate_once
from kdlab.data.split import Split
from kdlab.data.teacher_cache import cache_outputs
from kdlab.devices.mesh import Layout
from kdlab.experiment.splits import make_mixing
from kdlab.losses.table import LOSSES
from kdlab.models.network import CachedLogits, Network
from kdlab.settings.config import Config

BATCH = 500
DECISIVE = ("teacher", "max_blocks", "dtype")
"""Settings that affect the outputs of a teacher with given weights."""


def can_cache(config: Config) -> bool:
    """Returns whether the teacher's logits of an image never change and can be cached.

    They cannot be with augmentation (the pixels change), for losses on features (too
    much memory) or that ask about parts of images, for streamed data, or with several
    processes.
    """
    loss, mixed = LOSSES[config.distillation.loss], make_mixing(config.augmentation)
    return (
        config.execution.cache_teacher
        and config.data.augment == "none"
        and mixed == Mixing(smoothing=mixed.smoothing)
        and loss.on_logits
        and not loss.asks_teacher
        and not is_streamed(config.data.dataset)
        and jax.process_count() == 1
    )


def cache_logits(
    teacher: Network, dataset: Dataset, layout: Layout, config: Config
) -> CachedLogits:
    """Computes a teacher's logits on all training images, or reads them from a file.

    Args:
        teacher: The network.
        dataset: The images.
        layout: Placement of the arrays.
        config: The settings. Logits are kept in RUNS/teachers/outputs under a hash of
            the teacher's weights, the settings of its network, and the data.

    Returns:
        The logits, on all devices.
    """

    @jax.jit
    def ask(teacher: Network, images: jax.Array) -> jax.Array:
        return teacher.outputs(normalize(images, dataset.mean, dataset.std)).logits

    def compute() -> dict[str, np.ndarray]:
        split = Split(dataset.train_images, dataset.train_labels)
        parts = [
            np.asarray(ask(teacher, batch["images"]))
            for batch in iterate_once(split, layout, BATCH)
        ]
        # The last batch is padded.
        return {"logits": np.concatenate(parts)[: split.size]}

    outputs = cache_outputs(
        compute,
        params=(teacher.params, teacher.rest),
        dataset=dataset,
        cache_dir=config.execution.runs / "teachers" / "outputs",
        settings={name: getattr(config.networks, name) for name in DECISIVE},
    )
    return layout.replicate(CachedLogits(jnp.asarray(outputs["logits"])))
