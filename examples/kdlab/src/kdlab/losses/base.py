"""What a distillation loss is, and the batch that it is given."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.models import Model, Outputs
from kdlab.settings.parts import Distillation


class Batch(NamedTuple):
    """One batch on the device.

    Attributes:
        images: Normalised, ``[b, h, w, c]``.
        labels: ``[b]``.
        weights: 0 where an image only pads the batch, ``[b]``.
        indices: Indices of the images in the training set, ``[b]``.
        rest: Variables of the pupil that are not trained, before the step.
        key: For what a loss draws.
        progress: Share of the training that is done, from 0 to 1.
        teacher: The teacher's outputs; None without a teacher.
        share: Share of the sample weights of the whole batch, in a part of one.
    """

    images: Any
    labels: Any
    weights: Any
    indices: Any = None
    rest: Any = None
    key: Any = None
    progress: Any = None
    teacher: Outputs | None = None
    share: Any = None


class Setting(NamedTuple):
    """What a loss is built from.

    Attributes:
        distillation: The settings of the loss.
        epochs: Length of the training.
        student: Shapes of the student's outputs; None for losses without layers.
        teacher: Shapes of the teacher's outputs; the same.
        labels: Labels of the student's training set, ``[n]``; the same.
        class_means: Returns the teacher's mean penultimate vectors, ``[c, d]``.
    """

    distillation: Distillation = Distillation()
    epochs: int = 20
    student: Any = None
    teacher: Any = None
    labels: Any = None
    class_means: Callable[[], jax.Array] | None = None


class KdLoss(nnx.Module):
    """A distillation loss with the settings of its recipe and the layers it trains.

    A step calls :meth:`compare` in the forward pass of the network and the loss itself
    at the representation that both losses share.

    Attributes:
        weights: Weights of the task and of the scaled distillation loss.
        scale: Brings the loss to the size of the task's: its weight in the recipe,
            where that of the task is 1.
        on_logits: Whether it compares the logits, and so reaches the classifier.
        any_batch: Whether its value does not depend on the size of the batch.
        has_layers: Whether it is built from shapes: it has layers or a memory.
    """

    weights: ClassVar[tuple[float, float]] = (1.0, 1.0)
    scale: ClassVar[float] = 1.0
    on_logits: ClassVar[bool] = False
    any_batch: ClassVar[bool] = True
    has_layers: ClassVar[bool] = False

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        """Builds the layers, if there are any.

        Args:
            setting: Settings of the loss and, if it has layers, shapes.
            rngs: Source of initial values.
        """
        del setting, rngs

    def compare(self, student: Outputs, batch: Batch) -> Any:
        """What the loss compares besides the logits; moves statistics and memories."""
        del student, batch
        return ()

    def __call__(self, logits: jax.Array, compared: Any, batch: Batch) -> jax.Array:
        """The loss.

        Args:
            logits: Logits of the student, ``[b, c]``.
            compared: What :meth:`compare` returned.
            batch: With the outputs of the teacher.

        Returns:
            A scalar, before it is scaled.
        """
        raise NotImplementedError


class Pupil(nnx.Module):
    """A network and the loss with the layers that are trained beside it.

    Args:
        network: The student, all that is kept.
        adapter: The distillation loss; None where there is no teacher.
    """

    def __init__(self, network: Model, adapter: KdLoss | None = None):
        self.network = network
        self.adapter = adapter


class Fixed(nnx.Variable):
    """What belongs to a loss and is not trained: a memory, class means."""


def reach(loss: type[KdLoss], params: Any) -> tuple[Any, Any]:
    """Which parameters of a pupil the task and the distillation loss reach."""

    def paths(word: str) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: f"['{word}']" in jax.tree_util.keystr(path), params
        )

    task = jax.tree.map(lambda own: not own, paths("adapter"))
    distill = jax.tree.map(lambda own: loss.on_logits or not own, paths("classifier"))
    return task, distill


def teacher_outputs(batch: Batch) -> Outputs:
    """The outputs of the teacher, which a distillation loss cannot do without."""
    assert batch.teacher is not None
    return batch.teacher


def common_stages(ours: Sequence, theirs: Sequence) -> tuple[Sequence, Sequence]:
    """The deepest stages that both have, without the stem if more than two are left."""
    count = min(len(ours), len(theirs))
    count -= count > 2
    return ours[-count:], theirs[-count:]


def warmed_up(loss: jax.Array, batch: Batch, share: float) -> jax.Array:
    """Scales the loss up linearly from 0 over a share of the training."""
    return loss * jnp.minimum(batch.progress / share, 1) if share else loss


# The recipes of the literature train for 240 epochs, 20 of which warm the loss up.
WARM_UP = 20 / 240


def warm_up(setting: Setting) -> float:
    """Share of the training over which a loss is scaled up."""
    epochs = setting.distillation.loss_warmup
    return WARM_UP if epochs is None else epochs / setting.epochs
