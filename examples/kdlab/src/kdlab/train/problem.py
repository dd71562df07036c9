"""What all methods share: a network, data, and the losses of a pupil."""

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

import kdopt
from kdlab.data import AUGMENTATIONS, normalize
from kdlab.data.feed import Stream, whole
from kdlab.devices.mesh import Layout, make_layout
from kdlab.losses.table import KdLoss, Pupil
from kdlab.models.network import Chosen, Network, Split, taught, wide
from kdopt import losses

if TYPE_CHECKING:
    from kdlab.train.step import TrainState

EVALUATION_BATCH = 500

Metrics = dict[str, jax.Array]


class Problem:
    """What all methods share: the losses of a pupil under a teacher.

    Its compiled functions serve every method and seed.
    """

    graphdef: Any
    layout: Layout
    teacher: Network | None

    def __init__(
        self,
        graphdef: Any,
        teacher: Network | None,
        loss: KdLoss,
        *,
        steps: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        augment: str,
        temperature: float,
        layout: Layout | None = None,
    ):
        """Binds what is static.

        Args:
            graphdef: Static part of a :class:`Pupil`.
            teacher: A trained network, or None to learn from labels alone.
            loss: The distillation loss.
            steps: Length of the training, for curricula.
            mean: Of the images, per channel.
            std: Of the images, per channel.
            augment: Name of an augmentation.
            temperature: Of the distillation losses that leave it open.
            layout: Of the arrays; None: over all devices.
        """
        self.graphdef = graphdef
        self.layout = layout or make_layout()
        self.teacher = self.layout.replicate(teacher)
        self._loss = loss
        self._steps = steps
        self._moments = tuple(mean), tuple(std)
        self._augment = AUGMENTATIONS[augment]
        self._temperature = temperature
        self.probe = jax.jit(self._probe)
        self._sums_with_teacher = jax.jit(self._evaluation_sums)

    def encode(self, params: Any, batch: dict) -> tuple[tuple, Any]:
        """Runs the pupil in training mode.

        Returns:
            The logits and what the distillation loss compares besides, and the state
            of the pupil that is not trained.
        """
        pupil = self._pupil(params, batch["rest"])
        pupil.train()
        shared = self._represent(pupil, batch)
        return shared, nnx.split(pupil, nnx.Param, ...)[2]

    def head(self, params: Any, shared: tuple, batch: dict) -> tuple:
        """The losses at what `encode` returns: the task, and with a teacher another."""
        logits, compared = shared
        weights = batch["weights"]
        task = losses.cross_entropy(logits, batch["labels"], sample_weights=weights)
        if "teacher" not in batch:
            return (task,)
        adapter = self._pupil(params, batch["rest"]).adapter
        batch = batch | {"temperature": self._temperature}
        distill = self._loss.apply(adapter, logits, compared, batch["teacher"], batch)
        return task, self._loss.scale * distill

    def losses_fn(self, params: Any, batch: dict) -> tuple[tuple, Any]:
        """The losses as a function of the parameters."""
        shared, rest = self.encode(params, batch)
        return self.head(params, shared, batch), rest

    def network(self, state: "TrainState") -> Network:
        """The student without what was trained beside it."""
        return Network.of(nnx.merge(self.graphdef, state.evaluated, state.rest).network)

    def _pupil(self, params: Any, rest: Any) -> Pupil:
        return nnx.merge(self.graphdef, params, rest, copy=True)

    def _represent(self, pupil: Pupil, batch: dict) -> tuple[jax.Array, Any]:
        outputs = wide(pupil.network(batch["images"]))
        if "teacher" not in batch or self._loss.compare is None:
            return outputs.logits, ()
        compare = self._loss.compare
        return outputs.logits, compare(pupil.adapter, outputs, batch["teacher"], batch)

    def load(
        self,
        state: "TrainState",
        data: Split | Chosen,
        teacher: Any,
        indices: Any,
        weights: Any,
    ) -> dict:
        """Gathers, augments and labels one batch on the device."""
        indices, weights = self.layout.rows((indices, weights))
        chosen = data.take(indices) if isinstance(data, Split) else data
        chosen = self.layout.rows(chosen)
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        images = normalize(self._augment(key, chosen.images), *self._moments)
        batch = {
            "images": images,
            "labels": chosen.labels,
            "weights": weights,
            "indices": indices,
            "rest": state.rest,
            "key": jax.random.fold_in(key, 0),
            "progress": (state.step + 1) / self._steps,
        }
        return batch if teacher is None else taught(batch, teacher)

    def _probe(
        self,
        state: "TrainState",
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
        batch = batch | {
            "images": images,
            "rest": rest,
            "progress": jnp.ones(()),
        }
        batch = taught(batch, teacher)
        pupil = self._pupil(params, rest)
        pupil.eval()
        shared = self._represent(pupil, batch)
        return _sums(shared[0], self.head(params, shared, batch), batch)

    def evaluate(
        self, state: "TrainState", data: Split | Stream, *, with_teacher: bool = False
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
        return _means(
            self._sums_with_teacher(*arguments, batch, teacher)
            for batch in whole(data, self.layout, EVALUATION_BATCH)
        )


def evaluate(
    network: Network, data: Split | Stream, layout: Layout, moments: tuple
) -> dict[str, float]:
    """Accuracy and loss of a network alone over a whole split.

    Args:
        network: The network, on the devices.
        data: Images and labels.
        layout: Where batches lie.
        moments: Mean and standard deviation of the images, a tuple each.
    """
    return _means(
        _plain_sums(network, moments, batch)
        for batch in whole(data, layout, EVALUATION_BATCH)
    )


def class_means(
    network: Network,
    data: Split | Stream,
    layout: Layout,
    moments: tuple,
    num_classes: int,
) -> jax.Array:
    """Mean penultimate vectors of the images of each class, ``[c, d]``.

    Args:
        network: The network.
        data: Images and labels.
        layout: Where batches lie.
        moments: Mean and standard deviation of the images, a tuple each.
        num_classes: Number of rows; those without an image are 0.
    """

    @jax.jit
    def sums(network: Network, batch: dict) -> tuple[jax.Array, jax.Array]:
        vectors = network.outputs(normalize(batch["images"], *moments)).pooled
        shares = jax.nn.one_hot(batch["labels"], num_classes, axis=0)
        shares *= batch["weights"]
        totals = jnp.matmul(shares, vectors, precision="highest")
        return layout.whole((totals, jnp.sum(shares, 1, keepdims=True)))

    network = layout.replicate(network)
    parts = (sums(network, batch) for batch in whole(data, layout, EVALUATION_BATCH))
    total, count = functools.reduce(functools.partial(jax.tree.map, jnp.add), parts)
    return total / jnp.maximum(count, 1)


def _means(parts: Iterable[Metrics]) -> dict[str, float]:
    total: dict[str, float] = {}
    for sums in parts:
        total = {key: total.get(key, 0.0) + float(sums[key]) for key in sums}
    count = total.pop("count")
    return {key: value / count for key, value in total.items()}


@functools.partial(jax.jit, static_argnums=1)
def _plain_sums(network: Network, moments: tuple, batch: dict) -> Metrics:
    """Compiled once for all distillation losses: it sees the network only."""
    logits = network.outputs(normalize(batch["images"], *moments)).logits
    labels, weights = batch["labels"], batch["weights"]
    task = losses.cross_entropy(logits, labels, sample_weights=weights)
    return _sums(logits, (task,), batch)


def _sums(logits: jax.Array, values: tuple, batch: dict) -> Metrics:
    labels, weights = batch["labels"], batch["weights"]
    hits = (jnp.argmax(logits, -1) == labels).astype(jnp.float32)
    count = jnp.sum(weights)
    sums = {"count": count, "accuracy": jnp.sum(hits * weights)}
    return sums | {k: v * count for k, v in named("loss", values).items()}


def named(prefix: str, values: Any) -> Metrics:
    """Metrics of one kind: of the task and, if there is one, of the other loss."""
    names = ("task", "distill")[: len(values)]
    return {f"{prefix}/{n}": v for n, v in zip(names, values, strict=True)}
