"""Teachers and students in Flax NNX, each by its name in the papers.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from examples.distill import models
>>> model = models.create(
...     "cnn_student", num_classes=10, image_shape=(28, 28, 1), rngs=nnx.Rngs(0)
... )
>>> outputs = model(jnp.zeros((2, 28, 28, 1)))
>>> outputs.logits.shape, [feature.shape[1:] for feature in outputs.features]
((2, 10), [(28, 28, 8), (14, 14, 16)])
"""

import dataclasses
import difflib
from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from examples.distill.models._blocks import Layers
from examples.distill.models._outputs import Model, Outputs
from examples.distill.models.cnn import CNN, MLP

__all__ = ["MODELS", "Model", "ModelSpec", "Outputs", "create"]


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A constructor, and the data set whose counts the literature reports.

    Attributes:
        make: Takes ``num_classes``, ``image_shape`` and ``layers`` by keyword.
        num_classes: Number of classes of that data set.
        image_shape: Its ``(height, width, channels)``.
    """

    make: Callable[..., Model]
    num_classes: int
    image_shape: tuple[int, int, int]


mnist = partial(ModelSpec, num_classes=10, image_shape=(28, 28, 1))
digits = partial(ModelSpec, num_classes=10, image_shape=(8, 8, 1))

MODELS: dict[str, ModelSpec] = {
    "cnn_teacher": mnist(partial(CNN, (32, 64), (64,))),
    "cnn_student": mnist(partial(CNN, (8, 16))),
    "mlp": digits(MLP),
}


def _spec(name: str) -> ModelSpec:
    if name not in MODELS:
        close = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"no model {name!r}; {hint}There are: {', '.join(MODELS)}")
    return MODELS[name]


def create(
    name: str,
    *,
    rngs: nnx.Rngs,
    num_classes: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
    dtype: DTypeLike | None = None,
    param_dtype: DTypeLike = jnp.float32,
    axis_name: str | None = None,
    **options: int,
) -> Model:
    """Makes a model by name; its call maps ``[b, h, w, d]`` to :class:`Outputs`.

    Args:
        name: A key of :data:`MODELS`.
        rngs: Source of the initial values.
        num_classes: Number of classes; by default that of the model's own data set.
        image_shape: ``(height, width, channels)``; the same.
        dtype: Type of the computation, such as ``jnp.bfloat16``; parameters and
            BatchNorm stay in ``param_dtype``. None takes that of the images.
        param_dtype: Type in which parameters are kept.
        axis_name: Axis of ``shard_map`` or ``pmap`` over which BatchNorm averages;
            None keeps the statistics of each replica its own.
        **options: What else the constructor takes, such as ``width`` of ``"mlp"``.

    Returns:
        A model in training mode.

    Raises:
        ValueError: If there is no such model.
    """
    spec = _spec(name)
    layers = Layers(rngs, dtype, param_dtype, axis_name)
    return spec.make(
        num_classes=spec.num_classes if num_classes is None else num_classes,
        image_shape=image_shape or spec.image_shape,
        layers=layers,
        **options,
    )
