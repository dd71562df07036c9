"""Trains one network on a task, several seeds at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab.data import batches
from kdlab.models import Model
from kdlab.study.objective import Knobs, Update, make_update
from kdlab.study.task import ACCURACY, Lesson, Metric, Part, Task, Training
from kdopt import losses

EVALUATION_BATCH = 1024


class Trainer:
    """The compiled training of a network under a balancer.

    It serves every setting of the balancer and every seed, since the knobs are
    arguments. Networks without convolutions train all seeds and all steps of an epoch
    in one program. A convolution in a loop or over several sets of weights is many
    times slower on CPU, so convolutional networks take one step and one seed at a time.
    """

    def __init__(
        self,
        task: Task,
        make: Callable[[nnx.Rngs], Model],
        training: Training,
        lesson: Lesson,
        *,
        balancer: str = "fixed",
        start: nnx.State | None = None,
    ):
        """Prepares what all settings share.

        Args:
            task: The task.
            make: Makes the network.
            training: How it is trained.
            lesson: Training examples and labels by seed.
            balancer: One of ``BALANCERS``.
            start: Weights that are not drawn at random.
        """
        self._start_values = start
        self._task, self._training, self._lesson = task, training, lesson
        self._balancer = balancer
        self._inputs = jnp.asarray(task.train.inputs)
        self._steps = len(lesson(0)[0]) // training.batch_size
        if not self._steps:
            raise ValueError(
                f"{task.name} has {len(lesson(0)[0])} training examples, fewer than "
                f"the batch size {training.batch_size}."
            )

        def init(seed: jax.Array) -> Any:
            # Threefry: the weights do not depend on the number of seeds.
            key = jax.random.key(seed, impl="threefry2x32")
            return nnx.split(make(nnx.Rngs(key)))[1]

        self._graphdef = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))[0]
        self._scanned = self._inputs.ndim == 2
        self._init = jax.jit(jax.vmap(init))
        self._start = jax.jit(
            jax.vmap(lambda params, knobs: self._update(knobs).init(params), (0, None))
        )
        self._epoch = _Epoch(self._step, scanned=self._scanned)
        self._apply = jax.jit(
            jax.vmap(self._logits_of, (0, None)) if self._scanned else self._logits_of
        )

    def epochs(
        self, setting: dict, teacher: jax.Array, seeds: Sequence[int]
    ) -> Iterator[Any]:
        """Trains, yielding the parameters after each epoch.

        Args:
            setting: A canonical setting.
            teacher: Logits of the teacher on the training inputs, ``[n, ..., c]``.
            seeds: Seeds of initial weights, batches and lesson.

        Yields:
            The parameters of all seeds, stacked.
        """
        knobs = Knobs.of(setting)
        lessons = [self._lesson(seed) for seed in seeds]
        labels = jnp.asarray(np.stack([labels for _, labels in lessons]))
        params = self._init(jnp.asarray(seeds, jnp.int32))
        if self._start_values is not None:
            params = _overwrite(params, self._start_values)
        state = self._start(params, knobs)
        for epoch in range(self._training.epochs):
            order = np.stack(
                [
                    self._order(rows, seed, epoch)
                    for (rows, _), seed in zip(lessons, seeds, strict=True)
                ]
            )
            params, state = self._epoch(
                (params, state), order, labels, self._inputs, teacher, knobs
            )
            yield params

    def logits(self, params: Any, inputs: np.ndarray) -> np.ndarray:
        """Computes the logits of all seeds, ``[s, n, ..., c]``."""
        starts = range(0, len(inputs), EVALUATION_BATCH)
        slices = [inputs[start : start + EVALUATION_BATCH] for start in starts]
        if self._scanned:
            parts = [np.asarray(self._apply(params, part)) for part in slices]
            return np.concatenate(parts, axis=1)
        return np.stack(
            [
                np.concatenate([np.asarray(self._apply(one, part)) for part in slices])
                for one in _unstack(params)
            ]
        )

    def _order(self, rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        size = self._training.batch_size
        chosen = batches(len(rows), size, seed=seed, epoch=epoch, drop_last=True)
        return np.stack([rows[batch.indices] for batch in chosen])

    def _logits_of(self, params: Any, inputs: jax.Array) -> jax.Array:
        return nnx.merge(self._graphdef, params)(inputs).logits

    def _update(self, knobs: Knobs) -> Update:
        return make_update(
            lambda params, batch: self._logits_of(params, batch["inputs"]),
            self._balancer,
            knobs,
            self._training,
            self._training.epochs * self._steps,
        )

    def _step(
        self,
        carry: tuple,
        indices: jax.Array,
        labels: jax.Array,
        inputs: jax.Array,
        teacher: jax.Array,
        knobs: Knobs,
    ) -> tuple:
        batch = {
            "inputs": inputs[indices],
            "labels": labels[indices],
            "teacher": teacher[indices],
        }
        params, state = carry
        return self._update(knobs).apply(params, state, batch)


class _Epoch:
    """The compiled steps of an epoch for all seeds."""

    def __init__(self, step: Callable[..., tuple], *, scanned: bool):
        self._scanned = scanned

        def scan(carry: tuple, order: jax.Array, labels: jax.Array, *rest: Any) -> Any:
            def body(carry: tuple, indices: jax.Array) -> tuple[tuple, None]:
                return step(carry, indices, labels, *rest), None

            return jax.lax.scan(body, carry, order)[0]

        axes = (0, 0, 0, None, None, None)
        self.compiled = jax.jit(jax.vmap(scan, axes) if scanned else step)

    def __call__(
        self, carry: tuple, order: np.ndarray, labels: jax.Array, *rest: Any
    ) -> tuple:
        """Runs an epoch on the stacked carries of all seeds."""
        if self._scanned:
            return self.compiled(carry, order, labels, *rest)
        ends = []
        for one, steps, given in zip(_unstack(carry), order, labels, strict=True):
            for indices in steps:
                one = self.compiled(one, indices, given, *rest)
            ends.append(jax.block_until_ready(one))
        return jax.tree.map(lambda *x: jnp.stack(x), *ends)


def _unstack(tree: Any) -> list[Any]:
    """Splits a stacked tree into one tree per seed."""
    count = len(jax.tree.leaves(tree)[0])
    return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(count)]


def _overwrite(params: nnx.State, values: nnx.State) -> nnx.State:
    """Puts the same values into the parameters of all seeds."""
    flat = dict(nnx.to_flat_state(params))
    for path, value in nnx.to_flat_state(values):
        own = flat[path]
        flat[path] = own.replace(jnp.broadcast_to(value[...], own.shape))
    return nnx.from_flat_state(flat)


def compute_metrics(
    logits: np.ndarray, part: Part, metrics: Mapping[str, Metric] = ACCURACY
) -> tuple[dict[str, list[float]], list[float]]:
    """Computes the metrics and the cross-entropy of each seed.

    Args:
        logits: ``[s, n, ..., c]``.
        part: Inputs and labels of the same examples.
        metrics: The metrics by name.

    Returns:
        The values of each metric by seed, and the cross-entropies.
    """
    scores = {
        name: [metric(z, part) for z in logits] for name, metric in metrics.items()
    }
    labels = jnp.asarray(part.labels)
    values = [float(losses.cross_entropy(jnp.asarray(z), labels)) for z in logits]
    return scores, values
