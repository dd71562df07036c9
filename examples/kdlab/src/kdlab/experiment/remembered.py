"""Caches the logits of a teacher that sees the same images in every epoch."""

import jax
import jax.numpy as jnp
import numpy as np

from kdlab.data import Dataset, is_streamed, normalize
from kdlab.data.feed import iterate_once
from kdlab.data.split import Split
from kdlab.data.teacher_cache import cached_outputs
from kdlab.devices.mesh import Layout
from kdlab.losses.table import LOSSES
from kdlab.models.network import Network, Remembered
from kdlab.settings.config import Config

BATCH = 500
DECISIVE = ("teacher", "max_blocks", "dtype")
"""Settings that decide what a teacher of given weights says of given images."""


def is_valid(config: Config) -> bool:
    """Whether the teacher's logits of an image never change, and can be kept.

    Not with augmentation, where it sees other pixels each time; not for losses on
    features, which take too much memory; not for streams, nor in several processes.
    """
    return (
        config.execution.cache_teacher
        and config.data.augment == "none"
        and LOSSES[config.distillation.loss].on_logits
        and not is_streamed(config.data.dataset)
        and jax.process_count() == 1
    )


def remember(
    teacher: Network, dataset: Dataset, layout: Layout, config: Config
) -> Remembered:
    """Computes a teacher's logits of all training images, or reads them from a file.

    Args:
        teacher: The network.
        dataset: The images.
        layout: Where arrays lie.
        config: The settings: outputs are kept in RUNS/teachers/outputs, by a hash of
            the teacher, of those settings that make a network of its weights, and of
            the data.

    Returns:
        Its logits, on all devices.
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

    outputs = cached_outputs(
        compute,
        params=(teacher.params, teacher.rest),
        dataset=dataset,
        cache_dir=config.execution.runs / "teachers" / "outputs",
        settings={name: getattr(config.networks, name) for name in DECISIVE},
    )
    return layout.replicate(Remembered(jnp.asarray(outputs["logits"])))
