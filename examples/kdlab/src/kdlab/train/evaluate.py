"""Evaluates networks: accuracy and losses over a whole split."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdlab.data import normalize
from kdlab.data.feed import Stream, iterate_once
from kdlab.data.split import Split
from kdlab.devices.mesh import Layout
from kdlab.models.network import Network
from kdopt import losses

EVALUATION_BATCH = 500

Metrics = dict[str, jax.Array]


def evaluate(
    network: Network, data: Split | Stream, layout: Layout, moments: tuple
) -> dict[str, float]:
    """Returns accuracy and task loss of a network over a whole split.

    Args:
        network: The network, on the devices.
        data: Images and labels.
        layout: Placement of the batches.
        moments: Mean and standard deviation of the images, a tuple each.
    """
    return average(
        _sum_batch(network, moments, batch)
        for batch in iterate_once(data, layout, EVALUATION_BATCH)
    )


def compute_class_means(
    network: Network,
    data: Split | Stream,
    layout: Layout,
    moments: tuple,
    num_classes: int,
) -> jax.Array:
    """Returns the mean penultimate features of each class, ``[c, d]``.

    Args:
        network: The network.
        data: Images and labels.
        layout: Placement of the batches.
        moments: Mean and standard deviation of the images, a tuple each.
        num_classes: Number of rows; the row of a class without images is 0.
    """

    @jax.jit
    def totals(network: Network, batch: dict) -> tuple[jax.Array, jax.Array]:
        vectors = network.outputs(normalize(batch["images"], *moments)).pooled
        shares = jax.nn.one_hot(batch["labels"], num_classes, axis=0)
        shares *= batch["weights"]
        total = jnp.matmul(shares, vectors, precision="highest")
        return layout.replicate_inside((total, jnp.sum(shares, 1, keepdims=True)))

    network = layout.replicate(network)
    parts = (
        totals(network, batch) for batch in iterate_once(data, layout, EVALUATION_BATCH)
    )
    total, count = functools.reduce(functools.partial(jax.tree.map, jnp.add), parts)
    return total / jnp.maximum(count, 1)


def average(parts: Iterable[Metrics]) -> dict[str, float]:
    """Returns means over examples, given sums over the batches of a split."""
    total: dict[str, float] = {}
    for part in parts:
        total = {key: total.get(key, 0.0) + float(part[key]) for key in part}
    count = total.pop("count")
    return {key: value / count for key, value in total.items()}


@functools.partial(jax.jit, static_argnums=1)
def _sum_batch(network: Network, moments: tuple, batch: dict) -> Metrics:
    """Depends on the network only: compiled once for all distillation losses."""
    logits = network.outputs(normalize(batch["images"], *moments)).logits
    labels, weights = batch["labels"], batch["weights"]
    task = losses.cross_entropy(logits, labels, sample_weights=weights)
    return sum_metrics(logits, (task,), batch)


def sum_metrics(
    logits: jax.Array, values: tuple, batch: dict, names: Sequence[str] = ("task",)
) -> Metrics:
    """Sums correct predictions, losses and examples over a batch."""
    labels, weights = batch["labels"], batch["weights"]
    correct = (jnp.argmax(logits, -1) == labels).astype(jnp.float32)
    count = jnp.sum(weights)
    sums = {"count": count, "accuracy": jnp.sum(correct * weights)}
    return sums | {k: v * count for k, v in name_losses("loss", values, names).items()}


def name_losses(prefix: str, values: Any, names: Sequence[str]) -> Metrics:
    """Names per-loss values ``PREFIX/NAME``, as many as there are."""
    return {f"{prefix}/{n}": v for n, v in zip(names, values, strict=False)}
