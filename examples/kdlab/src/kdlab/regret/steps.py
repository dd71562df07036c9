"""Training steps of each kind of method, with every number as an argument."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import kdopt
from kdlab.models import Outputs
from kdlab.regret.objective import GRID, Batch, Knobs, compute_losses
from kdlab.regret.situation import LossKind
from kdlab.study.task import Task
from kdlab.train.methods import Numbers, Plan, make_optimizer
from kdlab.train.update import Update, make_update
from kdopt import diagnostics

EVALUATION_STEPS = 8  # between two looks at the validation set, by those that look
SPARSE_STEPS = 4  # between two looks at the reference batch, by those that spare it


class Program(NamedTuple):
    """How a method trains; all functions are compiled.

    Attributes:
        init: Makes the state from knobs and parameters.
        step: Maps knobs, parameters, state, batch and reference batch to new parameters
            and state.
        evaluate: Maps parameters, state and the validation set to a new state; None for
            a method that does not look at it.
        cheap_step: As ``step``, for all but every fourth step; None if there is no
            cheaper one.
    """

    init: Callable[[Knobs, Any], Any]
    step: Callable[[Knobs, Any, Any, Batch, Batch], tuple[Any, Any]]
    evaluate: Callable[[Any, Any, Batch], Any] | None = None
    cheap_step: Callable[[Knobs, Any, Any, Batch, Batch], tuple[Any, Any]] | None = None

    def pick_step(self, count: int) -> Callable[..., tuple[Any, Any]]:
        """Returns the step to take after a number of steps."""
        if self.cheap_step is not None and count % SPARSE_STEPS:
            return self.cheap_step
        return self.step


class Student:
    """The losses of the student of a task as functions of its parameters.

    Args:
        task: The task.
        loss: Distillation loss.
    """

    def __init__(self, task: Task, loss: LossKind):
        model: Any = nnx.eval_shape(lambda: task.student(nnx.Rngs(0)))
        self._graphdef = nnx.split(model)[0]
        self._head = nnx.split(model.classifier)[0]
        self._loss: LossKind = loss
        self._training = task.student_training

    def run(self, params: Any, inputs: jax.Array) -> Outputs:
        """Runs the network."""
        return nnx.merge(self._graphdef, params)(inputs)

    def apply_head(self, head: Any, features: jax.Array) -> jax.Array:
        """Returns the logits of another classifier on the features of the network."""
        return nnx.merge(self._head, head)(features)

    def losses_at(
        self, outputs: Outputs, batch: Batch, knobs: Knobs
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the task loss and the distillation loss."""
        return compute_losses(self._loss, outputs, batch, knobs)

    def losses(
        self, params: Any, batch: Batch, knobs: Knobs
    ) -> tuple[jax.Array, jax.Array]:
        """Runs the network and returns both losses."""
        return self.losses_at(self.run(params, batch.inputs), batch, knobs)

    def task_loss(self, params: Any, batch: Batch) -> jax.Array:
        """Returns the cross-entropy with the labels."""
        logits = self.run(params, batch.inputs).logits
        return kdopt.losses.cross_entropy(logits, batch.labels)

    def numbers(self, knobs: Knobs) -> Numbers:
        """Returns the hyperparameters of the methods."""
        return Numbers(
            weights=(1 - knobs.weight, knobs.weight),
            weight_decay=self._training.weight_decay,
            optimizer=self._training.optimizer,
        )

    def optimizer(self, knobs: Knobs) -> optax.GradientTransformation:
        """Returns the optimiser behind every method."""
        return make_optimizer(self.numbers(knobs), knobs.schedule)


def follow_plan(student: Student, make: Callable[[Numbers, Knobs], Plan]) -> Program:
    """One pass per loss, or one for all: the way of the plan."""

    def update_of(knobs: Knobs) -> Update:
        def encode(params: Any, batch: Batch) -> Any:
            outputs = student.run(params, batch.inputs)
            return outputs._replace(features=(), preactivations=())

        def head(params: Any, outputs: Outputs, batch: Batch) -> tuple:
            del params
            return student.losses_at(outputs, batch, knobs)

        return make_update(make(student.numbers(knobs), knobs), encode, head)

    def step(knobs: Knobs, params: Any, state: Any, batch: Batch, _: Batch) -> tuple:
        return update_of(knobs).apply(params, state, batch)

    return _compile(lambda knobs, params: update_of(knobs).init(params), step)


def follow_reference(student: Student, rule: Any) -> Program:
    """Three backward passes: both losses, and the task loss of reference examples."""

    def transform(knobs: Knobs) -> optax.GradientTransformationExtraArgs:
        return optax.chain(kdopt.reference_aligned(rule=rule), student.optimizer(knobs))

    def step(
        knobs: Knobs, params: Any, state: Any, batch: Batch, reference: Batch
    ) -> tuple:
        _, grads = kdopt.value_and_grads(student.losses)(params, batch, knobs)
        third = jax.grad(student.task_loss)(params, reference)
        updates, state = transform(knobs).update((*grads, third), state, params)
        return optax.apply_updates(params, updates), state

    return _compile(lambda knobs, params: transform(knobs).init(params), step)


def learn_by_slopes(student: Student, *, sparse: bool = False) -> Program:
    """One backward pass, one of the reference examples, one forward-mode pass.

    Args:
        student: The student.
        sparse: Whether the last two are made on every fourth step alone, and the
            weights move four times as fast.
    """
    learner = kdopt.hypergradient(0.025 * (SPARSE_STEPS if sparse else 1))

    def init(knobs: Knobs, params: Any) -> tuple:
        return student.optimizer(knobs).init(params), learner.init(params)

    def move(knobs: Knobs, params: Any, state: Any, grads: Any) -> tuple:
        updates, state = student.optimizer(knobs).update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def step(
        knobs: Knobs, params: Any, state: Any, batch: Batch, reference: Batch
    ) -> tuple:
        at = kdopt.linearize(student.losses)(params, batch, knobs)
        slopes = at.slopes(jax.grad(student.task_loss)(params, reference))
        grads = at.gradient(kdopt.loss_weights(state[1]))
        _, learned = learner.update(grads, state[1], params, slopes=slopes)
        moved, optimizer = move(knobs, params, state[0], grads)
        return moved, (optimizer, learned)

    def cheap_step(
        knobs: Knobs, params: Any, state: Any, batch: Batch, _: Batch
    ) -> tuple:
        grad_fn = kdopt.value_and_weighted_grad(student.losses)
        weights = kdopt.loss_weights(state[1])
        found: Any = grad_fn(params, batch, knobs, weights=weights)
        _, grads = found
        moved, optimizer = move(knobs, params, state[0], grads)
        return moved, (optimizer, state[1])

    program = _compile(init, step)
    return program._replace(cheap_step=jax.jit(cheap_step)) if sparse else program


class SearchState(NamedTuple):
    """State of :func:`search`.

    Attributes:
        optimizer: State of the optimiser of the student and the heads.
        search: State of :func:`kdopt.weight_search`.
        heads: Parameters of the probe heads, stacked.
    """

    optimizer: Any
    search: Any
    heads: Any


def search(student: Student) -> Program:
    """One backward pass of the student and of nine probe heads on its features."""
    candidates = jnp.array([(1 - weight, weight) for weight in GRID])
    searcher = kdopt.weight_search(candidates)

    def init(knobs: Knobs, params: Any) -> SearchState:
        head = params["classifier"]
        heads = jax.tree.map(lambda x: jnp.stack([x] * len(candidates)), head)
        state = student.optimizer(knobs).init((params, heads))
        return SearchState(state, searcher.init(params), heads)

    def step(
        knobs: Knobs, params: Any, state: SearchState, batch: Batch, _: Batch
    ) -> tuple:
        def loss(trained: tuple[Any, Any]) -> jax.Array:
            own, heads = trained
            outputs = student.run(own, batch.inputs)
            features = jax.lax.stop_gradient(outputs.pooled)

            def values_of(head: Any) -> jax.Array:
                logits = student.apply_head(head, features)
                probed = outputs._replace(logits=logits, pooled=features)
                return jnp.stack(student.losses_at(probed, batch, knobs))

            values = jnp.stack(student.losses_at(outputs, batch, knobs))
            probes = jnp.sum(candidates * jax.vmap(values_of)(heads))
            return kdopt.loss_weights(state.search) @ values + probes

        trained = params, state.heads
        updates, optimizer = student.optimizer(knobs).update(
            jax.grad(loss)(trained), state.optimizer, trained
        )
        moved: Any = optax.apply_updates(trained, updates)
        params, heads = moved
        return params, state._replace(optimizer=optimizer, heads=heads)

    def evaluate(params: Any, state: SearchState, validation: Batch) -> SearchState:
        features = student.run(params, validation.inputs).pooled

        def score(head: Any) -> jax.Array:
            logits = student.apply_head(head, features)
            return diagnostics.calibrated_cross_entropy(logits, validation.labels)

        found = jax.vmap(score)(state.heads)
        _, new = searcher.update(params, state.search, candidate_losses=found)
        return state._replace(search=new)

    return _compile(init, step)._replace(evaluate=jax.jit(evaluate))


def _compile(init: Callable[..., Any], step: Callable[..., tuple]) -> Program:
    return Program(jax.jit(init), jax.jit(step))
