"""Refuses a teacher whose outputs are not finite."""

import functools
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp

from kdlab.basics.reading import UserError
from kdlab.data import Dataset, Streamed, normalize
from kdlab.data.feed import Stream, iterate_once
from kdlab.devices.mesh import make_layout
from kdlab.experiment import splits
from kdlab.models.network import Network
from kdlab.settings.config import Config
from kdlab.train.evaluate import EVALUATION_BATCH


def check_outputs(
    network: Network,
    config: Config,
    dataset: Dataset | Streamed,
    source: Path,
    *,
    training: bool = True,
) -> float:
    """Refuses a teacher whose outputs are not finite, before a student is trained.

    Checks all images; of a streamed data set, all test images and the first training
    batch.

    Args:
        network: The teacher.
        config: The settings.
        dataset: The data set to run it on.
        source: File or folder of its weights, for the message.
        training: Whether to check the training images as well.

    Returns:
        Its accuracy on the test images.

    Raises:
        ValueError: At the first batch with an output that is not finite.
    """
    layout = make_layout(config.execution.devices)
    network = layout.replicate(network)
    moments = tuple(dataset.mean), tuple(dataset.std)
    parts = {
        "test": splits.test_split(config.data, dataset),
        "training": splits.full_training_split(config.data, dataset),
    }
    # One batch size for both, so that one program serves both.
    size = min(EVALUATION_BATCH, *(data.size for data in parts.values()))
    correct = {}
    if not training:
        del parts["training"]
    for name, data in parts.items():
        batches = iterate_once(data, layout, size)
        if name == "training" and isinstance(data, Stream):
            batches = itertools.islice(batches, 1)
        correct[name] = 0.0
        for number, batch in enumerate(batches):
            hits, finite = _check_batch(network, moments, batch)
            correct[name] += float(hits)
            if not finite:
                start = number * len(batch["labels"])
                raise UserError(
                    f"{source}: the outputs of {config.networks.teacher} are not "
                    f"finite, first in batch {number} of the {name} images of "
                    f"{dataset.name} (from image {start} on). Give other "
                    "--teacher-weights, or leave the option out to train a teacher."
                )
    return correct["test"] / parts["test"].size


@functools.partial(jax.jit, static_argnums=1)
def _check_batch(
    network: Network, moments: tuple, batch: dict
) -> tuple[jax.Array, jax.Array]:
    """Returns the number of correct predictions, and whether all outputs are finite."""
    outputs = network.outputs(normalize(batch["images"], *moments))
    correct = jnp.argmax(outputs.logits, -1) == batch["labels"]
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(outputs)]
    return jnp.sum(batch["weights"], where=correct), jnp.stack(finite).all()
