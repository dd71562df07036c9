"""The losses of a pupil on a batch, the same for all methods."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import kdopt
from kdlab.data import AUGMENTATIONS, normalize
from kdlab.data.feed import Stream, iterate_once
from kdlab.data.split import Chosen, Split
from kdlab.devices.mesh import Layout, make_layout
from kdlab.losses.base import Batch, KdLoss, Pupil
from kdlab.models.network import Network, wide
from kdlab.train.evaluate import EVALUATION_BATCH, Metrics, evaluate, means, sums
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
        """Binds what is static.

        Args:
            graphdef: Static part of a :class:`Pupil`.
            teacher: A trained network, or None to learn from labels alone.
            loss: Class of the distillation loss.
            steps: Length of the training, for curricula.
            mean: Mean of the images, per channel.
            std: Standard deviation of the images, per channel.
            augment: Name of an augmentation.
            layout: Layout of the arrays; None: over all devices.
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
            The logits and what the distillation loss compares besides, and the state
            of the pupil that is not trained.
        """
        pupil = self._pupil(params, batch.rest)
        pupil.train()
        shared = self._represent(pupil, batch)
        return shared, nnx.split(pupil, nnx.Param, ...)[2]

    def head(self, params: Any, shared: tuple, batch: Batch) -> tuple:
        """The losses at what `encode` returns: the task, and with a teacher another."""
        logits, compared = shared
        task = losses.cross_entropy(logits, batch.labels, sample_weights=batch.weights)
        if batch.teacher is None:
            return (task,)
        adapter = self._pupil(params, batch.rest).adapter
        assert adapter is not None  # where there is a teacher
        distill = adapter(logits, compared, batch)
        return task, self._loss.scale * distill

    def losses_fn(self, params: Any, batch: Batch) -> tuple[tuple, Any]:
        """The losses as a function of the parameters."""
        shared, rest = self.encode(params, batch)
        return self.head(params, shared, batch), rest

    def network(self, state: TrainState) -> Network:
        """The student without what was trained beside it."""
        return Network.of(nnx.merge(self.graphdef, state.evaluated, state.rest).network)

    def _pupil(self, params: Any, rest: Any) -> Pupil:
        return nnx.merge(self.graphdef, params, rest, copy=True)

    def _represent(self, pupil: Pupil, batch: Batch) -> tuple[jax.Array, Any]:
        outputs = wide(pupil.network(batch.images))
        if batch.teacher is None or pupil.adapter is None:
            return outputs.logits, ()
        return outputs.logits, pupil.adapter.compare(outputs, batch)

    def load(
        self,
        state: TrainState,
        data: Split | Chosen,
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
        data: Split | Chosen,
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
        return sums(shared[0], self.head(params, shared, whole), batch)

    def evaluate(
        self, state: TrainState, data: Split | Stream, *, with_teacher: bool = False
    ) -> dict[str, float]:
        """Accuracy and losses over a whole split, without augmentation.

        Args:
            state: Holds the parameters.
            data: Images and labels.
            with_teacher: Whether to run the teacher for the distillation loss too, if
                that makes sense for batches of any size.
        """
        teacher = self.teacher if with_teacher and self._loss.any_batch else None
        if teacher is None:
            return evaluate(self.network(state), data, self.layout, self._moments)
        arguments = state.evaluated, state.rest
        return means(
            self._sums_with_teacher(*arguments, batch, teacher)
            for batch in iterate_once(data, self.layout, EVALUATION_BATCH)
        )


def with_teacher_outputs(batch: Batch, teacher: Any) -> Batch:
    """The batch with the outputs of the teacher, if there is one."""
    if teacher is None:
        return batch
    return batch._replace(teacher=teacher.about(batch.images, batch.indices))
