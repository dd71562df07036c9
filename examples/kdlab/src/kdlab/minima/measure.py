"""Measures trained students: landscape, sharpness, mean logits.

The numbers are written to ``measures.npz`` next to the result of the run.
"""

import functools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab.basics.writing import replacing
from kdlab.data import Dataset, batches, normalize
from kdlab.data.split import Split
from kdlab.minima.landscape import Batches, draw_direction, evaluate
from kdlab.minima.sharpness import largest_eigenvalues
from kdlab.models.network import Network
from kdlab.runs import files
from kdlab.train.evaluate import EVALUATION_BATCH
from kdopt import losses

LIMIT = 2000  # maximum number of training images of a landscape

Measures = dict[str, np.ndarray]
"""``axis`` ``[n]`` with ``curve/task`` and ``curve/distill``; ``plane`` ``[m]`` with
``plane/task`` and ``plane/distill`` ``[m, m]``; ``eigenvalues/task`` and
``eigenvalues/distill``; ``logits/student`` and ``logits/teacher``, class means."""


class Grid(NamedTuple):
    """Resolution of a landscape.

    Attributes:
        points: Number of points of the curve along one direction.
        plane: Points per axis of the plane along two directions; 0: no plane.
        radius: Both extend from -radius to radius, in norms of the filters.
        eigenvalues: Number of eigenvalues of the Hessian; 0: none.
    """

    points: int = 41
    plane: int = 25
    radius: float = 1.0
    eigenvalues: int = 1


def read(folder: Path) -> Measures:
    """Reads the measures of a run; empty if they are missing or unreadable."""
    try:
        with np.load(folder / files.MEASURES) as file:
            return dict(file)
    except (OSError, ValueError, zipfile.BadZipFile):
        return {}


def write(folder: Path, measures: Measures) -> None:
    """Writes the measures of a run."""
    arrays = dict[str, Any](measures)
    with replacing(folder / files.MEASURES) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def measure(
    student: Network,
    teacher: Network,
    train: Split,
    dataset: Dataset,
    *,
    temperature: float,
    grid: Grid,
) -> Measures:
    """Measures a trained student: landscape, sharpness, mean logits.

    Args:
        student: The student.
        teacher: Its teacher.
        train: Training images and labels of the student, including noisy labels,
            without augmentation.
        dataset: Source of the normalisation and of the test images for the logits.
        temperature: Temperature of the distillation loss, which is always that on
            logits.
        grid: Resolution of the landscape.

    Returns:
        The measures by name.
    """
    both, data = training_losses(
        student, teacher, train, dataset, temperature=temperature
    )
    _, *each = _losses(student.graphdef, temperature)
    out = _landscape(both, student.params, data, grid)
    if grid.eigenvalues:
        for name, loss in zip(("task", "distill"), each, strict=True):
            out[f"eigenvalues/{name}"] = largest_eigenvalues(
                loss, student.params, data, count=grid.eigenvalues
            )
    for name, network in (("student", student), ("teacher", teacher)):
        out[f"logits/{name}"] = class_mean_logits(network, dataset)
    return out


def training_losses(
    student: Network,
    teacher: Network,
    train: Split,
    dataset: Dataset,
    *,
    temperature: float,
) -> tuple[Callable[[Any, Any], jax.Array], Batches]:
    """Returns task and distillation loss in evaluation mode, and their data.

    Args:
        student: The student.
        teacher: Its teacher.
        train: Training images and labels, subsampled if there are many.
        dataset: Source of the normalisation.
        temperature: Temperature of the distillation loss.

    Returns:
        A function from parameters and a batch to both losses ``[2]``; the batches.
    """
    data = list(_batches(student, teacher, train, dataset))
    return _losses(student.graphdef, temperature)[0], data


@functools.cache
def _losses(graphdef: Any, temperature: float) -> tuple[Callable[..., Any], ...]:
    """Returns both losses of a batch, and each alone; cached for equal networks."""

    def both(params: Any, batch: dict) -> jax.Array:
        weights = batch["weights"]
        model = nnx.merge(graphdef, params, batch["rest"], copy=True)
        model.eval()
        logits = model(batch["images"]).logits
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        task = losses.cross_entropy(logits, batch["labels"], sample_weights=weights)
        distill = losses.kd(
            logits, batch["teacher"], temperature=temperature, sample_weights=weights
        )
        return jnp.stack([task, distill])

    return both, lambda p, b: both(p, b)[0], lambda p, b: both(p, b)[1]


def _landscape(both: Any, params: Any, data: Batches, grid: Grid) -> Measures:
    # The same random directions for every network, scaled to its filters.
    keys = jax.random.split(jax.random.key(0), 2)
    directions = [draw_direction(key, params) for key in keys]
    axis = np.linspace(-grid.radius, grid.radius, grid.points)
    curve = evaluate(both, params, directions[:1], axis[:, None], data)
    out = {"axis": axis, "curve/task": curve[:, 0], "curve/distill": curve[:, 1]}
    if grid.plane:
        side = np.linspace(-grid.radius, grid.radius, grid.plane)
        points = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
        plane = evaluate(both, params, directions, points, data)
        plane = plane.reshape(grid.plane, grid.plane, 2)
        out |= {"plane": side, "plane/task": plane[..., 0]}
        out["plane/distill"] = plane[..., 1]
    return out


def _batches(
    student: Network, teacher: Network, train: Split, dataset: Dataset
) -> Iterator[tuple[float, dict]]:
    """Yields training images, subsampled to LIMIT, with the teacher's logits."""
    count = len(train.labels)
    chosen = np.unique(np.linspace(0, count - 1, min(count, LIMIT)).astype(int))
    size = min(EVALUATION_BATCH, len(chosen))
    for batch in batches(len(chosen), size, seed=None):
        indices = chosen[batch.indices]
        images = _normalized(train.images[indices], dataset)
        content = {
            "images": images,
            "labels": jnp.asarray(train.labels[indices]),
            "weights": jnp.asarray(batch.weights),
            "teacher": _logits(teacher, images),
            "rest": student.rest,
        }
        yield float(np.sum(batch.weights)) / len(chosen), content


def class_mean_logits(network: Network, dataset: Dataset) -> np.ndarray:
    """Returns the mean logits of each class on test images, ``[classes, classes]``.

    References:
        Zhao et al., `DOT <https://arxiv.org/abs/2307.08436>`_, ICCV 2023, Fig. 7
    """
    labels = np.asarray(dataset.test_labels)
    rows = []
    for batch in batches(len(labels), min(EVALUATION_BATCH, len(labels)), seed=None):
        images = _normalized(dataset.test_images[batch.indices], dataset)
        rows.append(np.asarray(_logits(network, images)))
    logits = np.concatenate(rows)[: len(labels)]  # the last batch is padded
    classes = np.eye(dataset.num_classes)[labels]
    counts = np.maximum(classes.sum(0), 1)
    return classes.T @ logits / counts[:, None]


def _normalized(images: Any, dataset: Dataset) -> jax.Array:
    return normalize(jnp.asarray(images), dataset.mean, dataset.std)


@jax.jit
def _logits(network: Network, images: jax.Array) -> jax.Array:
    return network.outputs(images).logits
