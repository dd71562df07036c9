"""The losses of a pupil on a batch, the same for all methods."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import kdopt
from kdlab.data import normalize
from kdlab.data.augmentation.mixing import NOT_MIXED, Mixing, mix
from kdlab.data.augmentation.table import Augmentation
from kdlab.data.feed import Stream, iterate_once
from kdlab.data.split import Examples, Split
from kdlab.devices.mesh import Layout, make_layout
from kdlab.losses.base import Batch, KdLoss, Pupil
from kdlab.models import Outputs
from kdlab.models.network import Network, keep, to_float32
from kdlab.train.evaluate import (
    EVALUATION_BATCH,
    Metrics,
    average,
    evaluate,
    sum_metrics,
)
from kdlab.train.state import TrainState
from kdopt import losses


class Problem:
    """The losses of a pupil under a teacher, the same for all methods.

    Its compiled functions serve every method and seed.
    """

    graphdef: Any
    layout: Layout
    teacher: Network | None

    def __init__(
        self,
        graphdef: Any,
        teacher: Network | None,
        loss: type[KdLoss],
        *,
        steps: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        augment: Augmentation,
        mixing: Mixing = NOT_MIXED,
        num_classes: int | None = None,
        layout: Layout | None = None,
    ):
        """Stores the static parts.

        Args:
            graphdef: Static part of a :class:`Pupil`.
            teacher: A trained network, or None to learn from labels alone.
            loss: Class of the distillation loss.
            steps: Number of steps of the training, for curricula.
            mean: Mean of the images, per channel.
            std: Standard deviation of the images, per channel.
            augment: Augmentation of the images, before they are normalised.
            mixing: How images and labels are mixed and erased.
            num_classes: Number of classes of mixed labels; None: they are not mixed.
            layout: Placement of the arrays; None: over all devices.
        """
        self.graphdef = graphdef
        self.layout = layout or make_layout()
        self.teacher = self.layout.replicate(teacher)
        self._loss = loss
        self._steps = steps
        self._moments = tuple(mean), tuple(std)
        self._augment = augment
        self._mixing, self._num_classes = mixing, num_classes
        self.probe = jax.jit(self._probe)
        self._sums_with_teacher = jax.jit(self._evaluation_sums)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the losses with a teacher, the task first."""
        return "task", *self._loss.names

    def encode(self, params: Any, batch: Batch) -> tuple[tuple, Any]:
        """Runs the pupil in training mode.

        Returns:
            ``shared, rest``: the representation that the losses share, and the
            non-trainable state of the pupil. The representation is the logits and what
            else the distillation loss compares, or what the heads of a network read.
        """
        pupil = self._pupil(params, batch.rest)
        pupil.train()
        shared = self._represent(pupil, batch)
        return shared, nnx.split(pupil, nnx.Param, ...)[2]

    def head(self, params: Any, shared: Any, batch: Batch) -> tuple:
        """Computes the task loss, and the distillation losses if there is a teacher."""
        pupil = self._pupil(params, batch.rest)
        pupil.train()
        logits, compared = self._finish(pupil, shared, batch)
        return self._values(pupil, logits, compared, batch)

    def _values(self, pupil: Pupil, logits: Any, compared: Any, batch: Batch) -> tuple:
        task = losses.cross_entropy(logits, batch.labels, sample_weights=batch.weights)
        if pupil.adapter is None or not self._is_taught(batch):
            return (task,)
        found = pupil.adapter(logits, compared, batch)
        several = found if isinstance(found, tuple) else (found,)
        return task, *(self._loss.scale * distill for distill in several)

    def losses_fn(self, params: Any, batch: Batch) -> tuple[tuple, Any]:
        """Computes the losses as a function of the parameters."""
        shared, rest = self.encode(params, batch)
        return self.head(params, shared, batch), rest

    def network(self, state: TrainState) -> Network:
        """Returns the student without the adapters that were trained with it."""
        return Network.of(nnx.merge(self.graphdef, state.evaluated, state.rest).network)

    def _pupil(self, params: Any, rest: Any) -> Pupil:
        return nnx.merge(self.graphdef, params, rest, copy=True)

    def _represent(self, pupil: Pupil, batch: Batch) -> Any:
        outputs = to_float32(pupil.network(batch.images))
        if self._loss.own_heads and outputs.distill_pooled is not None:
            return keep(outputs, ("pooled", "distill_pooled", *self._loss.keeps))
        return outputs.logits, self._compare(pupil, outputs, batch)

    def _finish(self, pupil: Pupil, shared: Any, batch: Batch) -> tuple:
        """Returns the logits and what the distillation loss compares."""
        if not isinstance(shared, Outputs):
            return shared
        outputs = to_float32(pupil.network.classify(shared))
        return outputs.logits, self._compare(pupil, outputs, batch)

    def _compare(self, pupil: Pupil, outputs: Outputs, batch: Batch) -> Any:
        if pupil.adapter is None or not self._is_taught(batch):
            return ()
        return pupil.adapter.compare(outputs, batch)

    def _is_taught(self, batch: Batch) -> bool:
        return batch.teacher is not None or self._loss.teacher_free

    def load(
        self,
        state: TrainState,
        data: Split | Examples,
        teacher: Any,
        indices: Any,
        weights: Any,
    ) -> Batch:
        """Gathers, augments and labels one batch on the device."""
        indices, weights = self.layout.shard_rows((indices, weights))
        chosen = data.take(indices) if isinstance(data, Split) else data
        chosen = self.layout.shard_rows(chosen)
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        images = normalize(self._augment(key, chosen.images), *self._moments)
        labels = chosen.labels
        if self._num_classes is not None:
            draws = jax.random.fold_in(key, 1)
            images, labels = mix(draws, images, labels, self._mixing, self._num_classes)
            images, labels = self.layout.shard_rows((images, labels))
        batch = Batch(
            images=images,
            labels=labels,
            weights=weights,
            indices=indices,
            rest=state.rest,
            key=jax.random.fold_in(key, 0),
            progress=(state.step + 1) / self._steps,
        )
        return self.with_teacher(batch, teacher)

    def with_teacher(self, batch: Batch, teacher: Any) -> Batch:
        """Adds the teacher's outputs, or a teacher that the loss asks, to a batch."""
        if teacher is None:
            return batch
        if not self._loss.asks_teacher:
            teacher = teacher.outputs_for(batch.images, batch.indices)
        return batch._replace(teacher=teacher)

    def _probe(
        self,
        state: TrainState,
        data: Split | Examples,
        teacher: Any,
        indices: Any,
        weights: Any,
    ) -> Metrics:
        batch = self.load(state, data, teacher, indices, weights)
        grads_fn = kdopt.value_and_grads(self.losses_fn, has_aux=True)
        _, grads = grads_fn(state.params, batch)
        return kdopt.diagnostics.summary(kdopt.gram(grads), names=self.names)

    def _evaluation_sums(
        self, params: Any, rest: Any, batch: dict, teacher: Network
    ) -> Metrics:
        images = normalize(batch["images"], *self._moments)
        whole = Batch(**(batch | {"images": images}), rest=rest, progress=jnp.ones(()))
        whole = self.with_teacher(whole, teacher)
        pupil = self._pupil(params, rest)
        pupil.eval()
        shared = self._represent(pupil, whole)
        logits, compared = self._finish(pupil, shared, whole)
        values = self._values(pupil, logits, compared, whole)
        return sum_metrics(logits, values, batch, self.names)

    def evaluate(
        self, state: TrainState, data: Split | Stream, *, with_teacher: bool = False
    ) -> dict[str, float]:
        """Returns accuracy and losses over a whole split, without augmentation.

        Args:
            state: State whose parameters are evaluated.
            data: Images and labels.
            with_teacher: Whether to run the teacher and evaluate the distillation loss,
                if that loss is meaningful for batches of any size.
        """
        teacher = self.teacher if with_teacher and self._loss.any_batch else None
        if teacher is None:
            return evaluate(self.network(state), data, self.layout, self._moments)
        arguments = state.evaluated, state.rest
        return average(
            self._sums_with_teacher(*arguments, batch, teacher)
            for batch in iterate_once(data, self.layout, EVALUATION_BATCH)
        )
