"""The interface of distillation losses, and the batches that they take."""

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
        labels: Class indices, ``[b]``; of mixed images or with smoothing distributions
            over the classes, ``[b, c]``.
        weights: Sample weights, 0 for padding, ``[b]``.
        indices: Indices of the images in the training set, ``[b]``.
        rest: Non-trainable variables of the pupil before the step.
        key: Random key for the loss.
        progress: Completed fraction of the training, from 0 to 1.
        teacher: The teacher's outputs, or for some losses the teacher; None without.
        share: In a micro-batch: its fraction of the batch's sample weight.
    """

    images: Any
    labels: Any
    weights: Any
    indices: Any = None
    rest: Any = None
    key: Any = None
    progress: Any = None
    teacher: Any = None
    share: Any = None


class Setting(NamedTuple):
    """Settings and shapes from which a loss is built.

    Attributes:
        distillation: The settings of the loss.
        epochs: Number of epochs of the training.
        student: Shapes of the student's outputs; None for losses without layers.
        teacher: Shapes of the teacher's outputs; None for losses without layers.
        labels: Labels of the student's training set, ``[n]``; None for losses without
            layers.
        class_means: Returns the teacher's mean penultimate features, ``[c, d]``.
    """

    distillation: Distillation = Distillation()
    epochs: int = 20
    student: Any = None
    teacher: Any = None
    labels: Any = None
    class_means: Callable[[], jax.Array] | None = None


class KdLoss(nnx.Module):
    """A distillation loss with the settings of its recipe and its trainable layers.

    A step calls :meth:`compare` in the forward pass of the network, and the loss itself
    on the representation that both losses share.

    Attributes:
        names: Names of what it computes: one distillation loss, or several that are
            weighted or balanced separately.
        weights: Weights of the task and of each scaled distillation loss.
        scale: Factor that brings the loss to the size of the task loss: its weight in
            a recipe whose task has weight 1.
        on_logits: Whether it compares logits, and so reaches the classifier.
        any_batch: Whether its value is independent of the batch size.
        has_layers: Whether it has layers or a memory, and so is built from shapes.
        own_heads: Whether the losses have heads of their own: a balancing method then
            balances the parameters that all losses reach, and each of the others
            follows the losses that reach it. The representation that they share is then
            that before the heads, where the network offers it.
        keeps: With ``own_heads``: the outputs that it compares besides logits.
        asks_teacher: Whether it asks the teacher itself, after the student:
            ``batch.teacher`` is then the network.
        teacher_free: Whether it needs no teacher.
    """

    names: ClassVar[tuple[str, ...]] = ("distill",)
    weights: ClassVar[tuple[float, ...]] = (1.0, 1.0)
    scale: ClassVar[float] = 1.0
    on_logits: ClassVar[bool] = False
    any_batch: ClassVar[bool] = True
    has_layers: ClassVar[bool] = False
    own_heads: ClassVar[bool] = False
    keeps: ClassVar[tuple[str, ...]] = ()
    asks_teacher: ClassVar[bool] = False
    teacher_free: ClassVar[bool] = False

    def __init__(self, setting: Setting, rngs: nnx.Rngs):
        """Builds the layers, if there are any.

        Args:
            setting: Settings of the loss and, if it has layers, shapes.
            rngs: Random streams of the initial values.
        """
        del setting, rngs

    def compare(self, student: Outputs, batch: Batch) -> Any:
        """Returns what is compared besides logits; updates statistics and memories."""
        del student, batch
        return ()

    def __call__(self, logits: jax.Array, compared: Any, batch: Batch) -> Any:
        """Computes the loss.

        Args:
            logits: Logits of the student, ``[b, c]``.
            compared: Result of :meth:`compare`.
            batch: The batch, with the outputs of the teacher.

        Returns:
            A scalar, before scaling; with several names, a tuple of as many.
        """
        raise NotImplementedError


class Pupil(nnx.Module):
    """A student network and the distillation loss that is trained with it.

    Args:
        network: The student, the only part that is kept.
        adapter: The distillation loss; None without a teacher.
    """

    def __init__(self, network: Model, adapter: KdLoss | None = None):
        self.network = network
        self.adapter = adapter


class Fixed(nnx.Variable):
    """A non-trainable variable of a loss: a memory, class means."""


def reached_params(loss: type[KdLoss], params: Any) -> tuple[Any, Any]:
    """Returns masks of the parameters that the task and the distillation loss reach."""

    def paths(word: str) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: f"['{word}']" in jax.tree_util.keystr(path), params
        )

    task = jax.tree.map(lambda own: not own, paths("adapter"))
    distill = jax.tree.map(lambda own: loss.on_logits or not own, paths("classifier"))
    return task, distill


def teacher_outputs(batch: Batch) -> Outputs:
    """Returns the outputs of the teacher, which a distillation loss needs."""
    assert batch.teacher is not None
    return batch.teacher


def common_stages(ours: Sequence, theirs: Sequence) -> tuple[Sequence, Sequence]:
    """Returns the deepest stages of both, without the stem if more than two remain."""
    count = min(len(ours), len(theirs))
    count -= count > 2
    return ours[-count:], theirs[-count:]


def scale_up(loss: jax.Array, batch: Batch, share: float) -> jax.Array:
    """Scales the loss up linearly from 0 over a fraction of the training."""
    return loss * jnp.minimum(batch.progress / share, 1) if share else loss


# Published recipes train for 240 epochs and warm the loss up over the first 20.
WARM_UP = 20 / 240


def warm_up_fraction(setting: Setting) -> float:
    """Returns the fraction of the training over which a loss is warmed up."""
    epochs = setting.distillation.loss_warmup
    return WARM_UP if epochs is None else epochs / setting.epochs
