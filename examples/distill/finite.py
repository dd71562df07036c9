"""Refuses a teacher whose outputs are not finite."""

import functools
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp

from examples.distill import splits
from examples.distill.config import Config
from examples.distill.data import normalize
from examples.distill.feed import Stream, whole
from examples.distill.mesh import make_layout
from examples.distill.network import Network
from examples.distill.problem import EVALUATION_BATCH
from examples.distill.reading import UserError
from examples.distill.students import Teacher


def check_outputs(teacher: Teacher, config: Config, source: Path) -> None:
    """Refuses a teacher whose outputs are not finite, before anyone learns from it.

    All images are looked at; of a stream those of the test and the first batch to
    learn from.

    Args:
        teacher: The teacher, with its data set.
        config: The settings.
        source: Where its weights come from, for the message.

    Raises:
        ValueError: At the first batch with an output that is not finite.
    """
    assert teacher.network is not None
    dataset, layout = teacher.dataset, make_layout(config.devices)
    network = layout.replicate(teacher.network)
    moments = tuple(dataset.mean), tuple(dataset.std)
    for name, data in (
        ("test", splits.testing(config, dataset)),
        ("training", splits.whole_training(config, dataset)),
    ):
        batches = whole(data, layout, EVALUATION_BATCH)
        if name == "training" and isinstance(data, Stream):
            batches = itertools.islice(batches, 1)
        for number, batch in enumerate(batches):
            if not _finite(network, moments, batch["images"]):
                start = number * len(batch["labels"])
                raise UserError(
                    f"{source}: the outputs of {config.teacher} are not finite, first "
                    f"in batch {number} of the {name} images of {dataset.name} (from "
                    f"image {start} on). Give other --teacher-weights, or leave the "
                    "option out to train a teacher."
                )


@functools.partial(jax.jit, static_argnums=1)
def _finite(network: Network, moments: tuple, images: jax.Array) -> jax.Array:
    outputs = network.outputs(normalize(images, *moments))
    return jnp.all(
        jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(outputs)])
    )
