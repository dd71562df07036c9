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

    All images are looked at; of a stream those of the test and the first batch to
    learn from.

    Args:
        network: The teacher.
        config: The settings.
        dataset: What it is to be asked about.
        source: Where its weights come from, for the message.
        training: Whether to look at the training images too.

    Returns:
        Its accuracy on the test images.

    Raises:
        ValueError: At the first batch with an output that is not finite.
    """
    layout = make_layout(config.execution.devices)
    network = layout.replicate(network)
    moments = tuple(dataset.mean), tuple(dataset.std)
    parts = {
        "test": splits.testing(config.data, dataset),
        "training": splits.whole_training(config.data, dataset),
    }
    # One size for both, so that one program looks at them.
    size = min(EVALUATION_BATCH, *(data.size for data in parts.values()))
    hits = {}
    if not training:
        del parts["training"]
    for name, data in parts.items():
        batches = iterate_once(data, layout, size)
        if name == "training" and isinstance(data, Stream):
            batches = itertools.islice(batches, 1)
        hits[name] = 0.0
        for number, batch in enumerate(batches):
            right, finite = _look(network, moments, batch)
            hits[name] += float(right)
            if not finite:
                start = number * len(batch["labels"])
                raise UserError(
                    f"{source}: the outputs of {config.networks.teacher} are not "
                    f"finite, first in batch {number} of the {name} images of "
                    f"{dataset.name} (from image {start} on). Give other "
                    "--teacher-weights, or leave the option out to train a teacher."
                )
    return hits["test"] / parts["test"].size


@functools.partial(jax.jit, static_argnums=1)
def _look(network: Network, moments: tuple, batch: dict) -> tuple[jax.Array, jax.Array]:
    """How many labels are predicted, and whether all outputs are finite."""
    outputs = network.outputs(normalize(batch["images"], *moments))
    right = jnp.argmax(outputs.logits, -1) == batch["labels"]
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(outputs)]
    return jnp.sum(batch["weights"], where=right), jnp.stack(finite).all()
