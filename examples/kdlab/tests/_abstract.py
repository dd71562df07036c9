"""A recipe's training step at its real sizes, traced without arrays or a compiler."""

import dataclasses
import functools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab.data import Dataset
from kdlab.data.split import Split
from kdlab.experiment.networks import make_model
from kdlab.experiment.students import Students, Teacher
from kdlab.models import Model, Outputs
from kdlab.papers.recipes._cost import SIZES
from kdlab.settings.config import Config
from kdlab.train.state import TrainState


@functools.cache
def dataset(name: str) -> Dataset:
    """Shapes of a data set, held in arrays of one byte."""
    count, side, classes = SIZES[name]
    images = np.broadcast_to(np.uint8(0), (count, side, side, 3))
    labels = np.arange(count, dtype=np.int32) % classes
    return Dataset(
        name=name,
        train_images=images,
        train_labels=labels,
        test_images=images[:1],
        test_labels=labels[:1],
        num_classes=classes,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


@functools.cache
def network(name: str, data: str, group: int | None) -> tuple[nnx.GraphDef, nnx.State]:
    """Builds a network without initial values, which trace more slowly than a step."""
    return nnx.split(
        nnx.eval_shape(
            lambda: make_model(name, dataset(data), nnx.Rngs(0), batch_norm_group=group)
        )
    )


def zeroed(
    name: str,
    data: Dataset,
    rngs: nnx.Rngs,
    *,
    dtype: str,
    batch_norm_group: int | None,
    max_blocks: int | None,
    drop_path: float = 0.0,
    remat: bool = False,
    scan: bool = False,
) -> Model:
    """Replaces `make_model`."""
    assert max_blocks is None and not remat and not scan
    del drop_path  # changes no shape
    graphdef, shapes = network(name, data.name, batch_norm_group)
    return nnx.merge(graphdef, jax.tree.map(_zeros, shapes))


def _zeros(x: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.zeros(x.shape, x.dtype)


@functools.cache
def teacher_outputs(name: str, data: str, batch: int) -> Outputs:
    """Returns the shapes of a teacher's outputs for a batch, from a trace of it."""
    model = nnx.merge(*network(name, data, None))
    model.eval()
    graphdef, state = nnx.split(model)
    shape = batch, *dataset(data).image_shape
    return jax.eval_shape(
        lambda state, x: nnx.merge(graphdef, state, copy=True)(x),
        state,
        jax.ShapeDtypeStruct(shape, jnp.float32),
    )


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Known:
    """Replaces a teacher, which is traced once for all its students."""

    name: str
    data: str

    def outputs(self, images: jax.Array) -> Outputs:
        shapes = teacher_outputs(self.name, self.data, len(images))
        return jax.tree.map(_zeros, shapes)

    def _replace(self, *, graphdef: Any) -> "Known":
        del graphdef  # with another dtype, the outputs have the same
        return self

    def outputs_for(self, images: jax.Array, indices: jax.Array) -> Outputs:
        del indices
        return self.outputs(images)


def no_means(teacher: Known, *others: Any) -> jax.Array:
    """Replaces `class_means`."""
    *_, num_classes = others
    images = jnp.zeros((1, *dataset(teacher.data).image_shape))
    return jnp.zeros((num_classes, teacher.outputs(images).pooled.shape[-1]))


def step(config: Config) -> tuple[TrainState, TrainState, dict]:
    """Returns shapes of the state before and after a step, and of its metrics."""
    data = dataset(config.data.dataset)
    name = config.networks.teacher
    teacher = None if name is None else Known(name, config.data.dataset)
    made = []

    def begin() -> TrainState:
        students = Students(config, Teacher(teacher, data))
        plan = students.plan(config.methods[0])
        made.extend((students, plan))
        return students.state(plan, 0)

    stubs = {"make_model": zeroed, "compute_class_means": no_means}
    with mock.patch.multiple("kdlab.experiment.students", **stubs):
        before = jax.eval_shape(begin)
    students, plan = made
    count, batch = len(data.train_labels), config.training.batch_size
    shapes = jax.eval_shape(
        lambda: (
            Split(
                jnp.zeros((count, *data.image_shape), jnp.uint8),
                jnp.zeros(count, jnp.int32),
            ),
            jnp.zeros(batch, jnp.int32),
            jnp.zeros(batch),
        )
    )
    split, indices, weights = shapes
    train = students.step(plan)
    after, metrics = jax.eval_shape(train, before, split, teacher, indices, weights)
    return before, after, metrics
