"""The losses of a pupil on a batch, the same for all methods."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import kdopt
from kdlab.data import AUGMENTATIONS, normalize
from kdlab.data.feed import Stream, iterate_once
from kdlab.data.split import Examples, Split
from kdlab.devices.mesh import Layout, make_layout
from kdlab.losses.base import Batch, KdLoss, Pupil
from kdlab.models.network import Network, to_float32
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
        augment: str,
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
            augment: Name of an augmentation.
            layout: Placement of the arrays; None: over all devices.
        """
        self.graphdef = graphdef
        self.layout = layout or make_layout()
        self.teacher = self.layout.replicate(teacher)
        self._loss = loss
        self._steps = steps
        self._moments = tuple(mean), tuple(std)
        self._augment = AUGMENTATIONS[augment]
        self.probe = jax.jit(self._probe)
        self._sums_with_teacher = jax.jit(self._evaluation_sums)

    def encode(self, params: Any, batch: Batch) -> tuple[tuple, Any]:
        """Runs the pupil in training mode.

        Returns:
            ``(logits, compared), rest``: the logits, what else the distillation loss
            compares, and the non-trainable state of the pupil.
        """
        pupil = self._pupil(params, batch.rest)
        pupil.train()
        shared = self._represent(pupil, batch)
        return shared, nnx.split(pupil, nnx.Param, ...)[2]

    def head(self, params: Any, shared: tuple, batch: Batch) -> tuple:
        """Computes the task loss, and the distillation loss if there is a teacher."""
        logits, compared = shared
        task = losses.cross_entropy(logits, batch.labels, sample_weights=batch.weights)
        if batch.teacher is None:
            return (task,)
        adapter = self._pupil(params, batch.rest).adapter
        assert adapter is not None  # there is a teacher
        distill = adapter(logits, compared, batch)
        return task, self._loss.scale * distill

    def losses_fn(self, params: Any, batch: Batch) -> tuple[tuple, Any]:
        """Computes the losses as a function of the parameters."""
        shared, rest = self.encode(params, batch)
        return self.head(params, shared, batch), rest

    def network(self, state: TrainState) -> Network:
        """Returns the student without the adapters that were trained with it."""
        return Network.of(nnx.merge(self.graphdef, state.evaluated, state.rest).network)

    def _pupil(self, params: Any, rest: Any) -> Pupil:
        return nnx.merge(self.graphdef, params, rest, copy=True)

    def _represent(self, pupil: Pupil, batch: Batch) -> tuple[jax.Array, Any]:
        outputs = to_float32(pupil.network(batch.images))
        if batch.teacher is None or pupil.adapter is None:
            return outputs.logits, ()
        return outputs.logits, pupil.adapter.compare(outputs, batch)

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
        batch = Batch(
            images=images,
            labels=chosen.labels,
            weights=weights,
            indices=indices,
            rest=state.rest,
            key=jax.random.fold_in(key, 0),
            progress=(state.step + 1) / self._steps,
        )
        return with_teacher_outputs(batch, teacher)

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
        return kdopt.diagnostics.summary(kdopt.gram(grads))

    def _evaluation_sums(
        self, params: Any, rest: Any, batch: dict, teacher: Network
    ) -> Metrics:
        images = normalize(batch["images"], *self._moments)
        whole = Batch(**(batch | {"images": images}), rest=rest, progress=jnp.ones(()))
        whole = with_teacher_outputs(whole, teacher)
        pupil = self._pupil(params, rest)
        pupil.eval()
        shared = self._represent(pupil, whole)
        return sum_metrics(shared[0], self.head(params, shared, whole), batch)

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


def with_teacher_outputs(batch: Batch, teacher: Any) -> Batch:
    """Adds the outputs of the teacher, if there is one, to a batch."""
    if teacher is None:
        return batch
    return batch._replace(teacher=teacher.outputs_for(batch.images, batch.indices))
