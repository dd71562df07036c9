"""One training run: a jitted step, an epoch loop, metrics and checkpoints."""

import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import kdopt
from examples.distill import checkpoint
from examples.distill.data import AUGMENTATIONS, batches, normalize
from examples.distill.kd_losses import KdLoss, Pupil
from examples.distill.methods import Plan
from examples.distill.models import Outputs
from kdopt import losses

EVALUATION_BATCH = 500
STEPS_IN_FLIGHT = 8  # an unbounded queue of steps may exhaust the devices' buffers

Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
    """Everything that a step changes, and all that a checkpoint holds.

    Attributes:
        params: Parameters of the pupil.
        rest: Its other state: BatchNorm statistics, dropout keys, memories.
        opt_state: State of the plan's transform.
        balancer: State of the balancer at the logits; ``()`` without one.
        step: Number of steps done, int32.
        seed: Of the augmentations, int32.
    """

    params: Any
    rest: Any
    opt_state: Any
    balancer: Any
    step: jax.Array
    seed: jax.Array


class Network(NamedTuple):
    """A network as a pure function and its arrays."""

    graphdef: Any
    params: Any
    rest: Any

    @classmethod
    def of(cls, model: nnx.Module) -> "Network":
        """Splits an NNX model."""
        return cls(*nnx.split(model, nnx.Param, ...))

    def outputs(self, images: jax.Array) -> Outputs:
        """Runs it in evaluation mode."""
        model = nnx.merge(self.graphdef, self.params, self.rest, copy=True)
        model.eval()
        return model(images)


class Split(NamedTuple):
    """Images and labels of one part of a data set.

    Attributes:
        images: ``[n, h, w, c]`` of uint8.
        labels: ``[n]``.
    """

    images: Any
    labels: Any


class Problem:
    """What all methods share: the losses of a pupil under a teacher.

    Its compiled functions serve every method and seed.
    """

    graphdef: Any
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
        """
        self.graphdef = graphdef
        self.teacher = teacher
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

    def network(self, state: TrainState) -> Network:
        """The student without what was trained beside it."""
        return Network.of(nnx.merge(self.graphdef, state.params, state.rest).network)

    def _pupil(self, params: Any, rest: Any) -> Pupil:
        return nnx.merge(self.graphdef, params, rest, copy=True)

    def _represent(self, pupil: Pupil, batch: dict) -> tuple[jax.Array, Any]:
        outputs = pupil.network(batch["images"])
        if "teacher" not in batch or self._loss.compare is None:
            return outputs.logits, ()
        compare = self._loss.compare
        return outputs.logits, compare(pupil.adapter, outputs, batch["teacher"], batch)

    def load(
        self, state: TrainState, data: Split, teacher: Any, indices: Any, weights: Any
    ) -> dict:
        """Gathers, augments and labels one batch on the device."""
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        images = normalize(self._augment(key, data.images[indices]), *self._moments)
        batch = {
            "images": images,
            "labels": data.labels[indices],
            "weights": weights,
            "indices": indices,
            "rest": state.rest,
            "key": jax.random.fold_in(key, 0),
            "progress": (state.step + 1) / self._steps,
        }
        if teacher is not None:
            batch["teacher"] = teacher.outputs(images)
        return batch

    def _probe(
        self, state: TrainState, data: Split, teacher: Any, indices: Any, weights: Any
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
            "teacher": teacher.outputs(images),
            "rest": rest,
            "progress": jnp.ones(()),
        }
        pupil = self._pupil(params, rest)
        pupil.eval()
        shared = self._represent(pupil, batch)
        return _sums(shared[0], self.head(params, shared, batch), batch)

    def evaluate(
        self, state: TrainState, data: Split, *, with_teacher: bool = False
    ) -> dict[str, float]:
        """Accuracy and losses over a whole split, without augmentation.

        Args:
            state: Holds the parameters.
            data: Images and labels.
            with_teacher: Whether to run the teacher for the distillation loss too, if
                that makes sense for batches of any size.
        """
        teacher = self.teacher if with_teacher and self._loss.any_batch else None
        network = self.network(state)
        total: dict[str, float] = {}
        size = min(EVALUATION_BATCH, len(data.labels))
        for chosen in batches(len(data.labels), size, seed=None):
            batch = {
                "images": data.images[chosen.indices],
                "labels": data.labels[chosen.indices],
                "weights": chosen.weights,
            }
            if teacher is None:
                sums = _plain_sums(network, self._moments, batch)
            else:
                sums = self._sums_with_teacher(state.params, state.rest, batch, teacher)
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
    return sums | {k: v * count for k, v in _named("loss", values).items()}


Step = Callable[[TrainState, Split, Any, Any, Any], tuple[TrainState, Metrics]]


def make_step(problem: Problem, plan: Plan) -> Step:
    """Compiles the training step of a method; it serves every seed.

    Args:
        problem: The losses.
        plan: How gradients are combined and applied.

    Returns:
        ``step(state, data, teacher, indices, sample_weights)``; the state it is given
        is used up.
    """
    exact = kdopt.value_and_grads(problem.losses_fn, has_aux=True)
    weighted = kdopt.value_and_weighted_grad(problem.losses_fn, has_aux=True)

    def step(
        state: TrainState, data: Split, teacher: Any, indices: Any, weights: Any
    ) -> tuple[TrainState, Metrics]:
        params, opt_state, balancer = state.params, state.opt_state, state.balancer
        batch = problem.load(state, data, teacher, indices, weights)
        if plan.balancer is not None:
            shared = kdopt.value_and_shared_grad(
                problem.encode, problem.head, plan.balancer, has_aux=True
            )
            (values, rest), grads, balancer = shared(params, batch, state=balancer)
            used = kdopt.loss_weights(balancer)
        elif plan.weights is not None:
            used_at = plan.weights
            (values, rest), grads = weighted(
                params, batch, weights=lambda values: used_at(opt_state, values)
            )
            used = used_at(opt_state, values)
        else:
            (values, rest), grads = exact(params, batch)
            used = None
        updates, opt_state = plan.tx.update(grads, opt_state, params, values=values)
        if used is None and plan.reports_weights:
            used = kdopt.loss_weights(opt_state)
        metrics = _named("loss", values)
        if used is not None:
            metrics |= _named("weight", used)
        params = optax.apply_updates(params, updates)
        state = TrainState(
            params, rest, opt_state, balancer, state.step + 1, state.seed
        )
        return state, metrics

    return jax.jit(step, donate_argnums=0)


def initial_state(network: Network, plan: Plan, seed: int) -> TrainState:
    """The state before the first step."""
    balancer = plan.balancer
    state = TrainState(
        params=network.params,
        rest=network.rest,
        opt_state=plan.tx.init(network.params),
        balancer=() if balancer is None else balancer.init(network.params),
        step=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.int32),
    )
    return on_device(state)


def on_device(tree: Any) -> Any:
    """Commits arrays to the device, as the outputs of a step are.

    Without it the second step meets other placements than the first and is compiled
    again.
    """
    return jax.device_put(tree, jax.devices()[0])


def _named(prefix: str, values: Any) -> Metrics:
    names = ("task", "distill")[: len(values)]
    return {f"{prefix}/{n}": v for n, v in zip(names, values, strict=True)}


class Run(NamedTuple):
    """One training: which data, for how long, where it is written.

    Attributes:
        directory: Made if it is not there; holds ``metrics.jsonl`` (one line an
            epoch), ``checkpoints`` and, at the end, ``result.json``.
        train: Training images and labels.
        test: Test images and labels.
        epochs: Number of epochs.
        batch_size: Images in a step.
        checkpoint_seconds: Seconds between checkpoints.
        diagnose: Whether to look at the gradients after each epoch, and at the losses
            on the training set at the end.
    """

    directory: Path
    train: Split
    test: Split
    epochs: int
    batch_size: int
    checkpoint_seconds: float = 60.0
    diagnose: bool = True


def fit(
    run: Run, problem: Problem, step: Step, state: TrainState
) -> Iterator[dict[str, float]]:
    """Trains, yielding the metrics of each epoch; goes on where it was interrupted.

    A run ends with the first epoch in which a loss is not finite; its result then says
    ``diverged``, with that epoch, and holds the accuracies of those before.

    Args:
        run: What and where.
        problem: The losses.
        step: The compiled step of a method.
        state: The state before the first step.

    Yields:
        Metrics by name, with ``epoch`` from 1.
    """
    run.directory.mkdir(parents=True, exist_ok=True)
    log = run.directory / "metrics.jsonl"
    data, seed = on_device(run.train), int(state.seed)
    with checkpoint.Saver(run.directory / "checkpoints") as saver:
        state, first_epoch = saver.restore(state)
        history = _cut_history(log, first_epoch)
        saved = time.monotonic()
        for epoch in range(first_epoch, run.epochs):
            began, parts = time.monotonic(), []
            order = batches(len(data.labels), run.batch_size, seed=seed, epoch=epoch)
            for batch in order:
                state, metrics = step(state, data, problem.teacher, *batch)
                parts.append(metrics)
                if len(parts) > STEPS_IN_FLIGHT:
                    jax.block_until_ready(parts[-STEPS_IN_FLIGHT])
            record = {f"train/{key}": value for key, value in _mean(parts).items()}
            record |= {"epoch": epoch + 1, "seconds": time.monotonic() - began}
            if problem.teacher is not None and run.diagnose:
                seen = problem.probe(state, data, problem.teacher, *batch)
                record |= {f"gradient/{k}": float(v) for k, v in seen.items()}
            tested = problem.evaluate(state, run.test)
            record |= {f"test/{key}": value for key, value in tested.items()}
            history.append(record)
            with log.open("a") as file:
                file.write(json.dumps(record) + "\n")
            yield record
            values = [record[key] for key in record if key.startswith("train/loss/")]
            if not np.isfinite(values).all():
                result = {"diverged": epoch + 1, **summarize(history[:-1])}
                _write(run, result)
                return
            if time.monotonic() - saved > run.checkpoint_seconds:
                saver.save(epoch + 1, state)
                saved = time.monotonic()
        saver.save(run.epochs, state)
        result = summarize(history)
        if run.diagnose:
            train = problem.evaluate(state, run.train, with_teacher=True)
            result |= {f"train/{k}": v for k, v in train.items()}
        _write(run, result)


def _write(run: Run, result: dict[str, float]) -> None:
    (run.directory / "result.json").write_text(json.dumps(result, indent=2) + "\n")


def summarize(history: list[dict[str, float]]) -> dict[str, float]:
    """The numbers of a run, from its metrics: the last epoch and the best."""
    if not history:
        return {}
    best = max(history, key=lambda record: record["test/accuracy"])
    key = "gradient/conflict/distill"
    conflicts = [record[key] for record in history if key in record]
    return {
        "accuracy/last": history[-1]["test/accuracy"],
        "accuracy/best": best["test/accuracy"],
        "epoch/best": best["epoch"],
        "seconds": sum(record["seconds"] for record in history),
    } | ({"conflict_rate": float(np.mean(conflicts))} if conflicts else {})


def _mean(parts: list[Metrics]) -> dict[str, float]:
    return {key: float(np.mean([part[key] for part in parts])) for key in parts[0]}


def _cut_history(path: Path, epochs: int) -> list[dict[str, float]]:
    """Reads the lines up to the checkpoint and drops those behind it."""
    lines = path.read_text().splitlines()[:epochs] if path.exists() else []
    path.write_text("".join(line + "\n" for line in lines))
    return [json.loads(line) for line in lines]
