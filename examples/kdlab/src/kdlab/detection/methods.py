"""One training step of a detector by each method."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

import kdopt
from kdlab.data.detection.batch import DetectionBatch
from kdlab.detection.losses.criterion import detection_losses
from kdlab.detection.losses.distances import (
    make_orthogonal,
    standardized_distance,
    token_matching,
)
from kdlab.detection.networks import Detector, from_tokens
from kdlab.train.reach import reached_by_all
from kdopt import diagnostics

MethodName = Literal[
    "labels_only",
    "token_matching",
    "vkd",
    "dto_kd",
    "dto_kd_shared",
    "dto_kd_amortized",
]
METHODS: tuple[MethodName, ...] = get_args(MethodName)
FIXED = ("token_matching", "vkd")

NAMES = "task", "distill"


class State(NamedTuple):
    """Everything that a training changes.

    Attributes:
        params: ``network``, and ``projectors`` where the distance has some.
        optimizer: State of the optimiser, and of a method before it.
        balancer: State of a balancer at the neck's input; () without one.
    """

    params: Any
    optimizer: Any
    balancer: Any


class Problem(NamedTuple):
    """The two losses of a student.

    Attributes:
        student: The detector of the student.
        distance: ``vkd``, ``token_matching``, or None for the task loss alone.
        base: Constant matrices of VkD's projectors, ``[6, d, d]``.
        group: See :func:`kdlab.detection.losses.distances.standardized_distance`.
    """

    student: Detector
    distance: str | None
    base: Any = None
    group: int | None = None

    def encode(
        self, params: Any, batch: DetectionBatch, tokens: Any, key: Array
    ) -> Any:
        """Returns the input of the neck, which both losses share."""
        del tokens
        first, _ = jax.random.split(key)
        return self.student.encode(params["network"], batch, first)

    def heads(
        self, params: Any, neck: Any, batch: DetectionBatch, tokens: Any, key: Array
    ) -> tuple[Array, ...]:
        """Computes the losses from the input of the neck: task, distillation."""
        _, second = jax.random.split(key)
        found = self.student.decode(params["network"], neck, batch.mask, second)
        levels = detection_losses(found.logits, found.boxes, batch.targets)
        if self.distance is None:
            return (levels.total,)
        teacher = from_tokens(tokens)
        if self.distance == "token_matching":
            return levels.total, token_matching(found, teacher)
        projectors = make_orthogonal(params["projectors"], self.base)
        distance = standardized_distance(found, teacher, projectors, group=self.group)
        return levels.total, distance

    def losses(
        self, params: Any, batch: DetectionBatch, tokens: Any, key: Array
    ) -> tuple[Array, ...]:
        """Computes the losses from images."""
        neck = self.encode(params, batch, tokens, key)
        return self.heads(params, neck, batch, tokens, key)


class Method(NamedTuple):
    """How one step changes the state.

    Attributes:
        init: Maps parameters to a state.
        step: Maps state, batch, tokens of the teacher and key to state and metrics.
    """

    init: Callable[[Any], State]
    step: Callable[[State, DetectionBatch, Any, Array], tuple[State, dict[str, Array]]]


def make_method(
    name: str,
    problem: Problem,
    optimizer: optax.GradientTransformation,
    reach: tuple[Any, ...],
    *,
    weight: float,
) -> Method:
    """Makes the step of a method.

    The methods of DTO-KD balance the parameters that both losses reach; the others
    (heads, projectors) keep the plain gradient of their loss.

    Args:
        name: One of :data:`METHODS`.
        problem: The losses.
        optimizer: Optimiser of the combined gradient.
        reach: What ``kdopt.reachable`` returns for these losses.
        weight: Weight of the distillation loss for methods that fix it.
    """
    if name == "dto_kd":
        return _exact(problem, optimizer, reached_by_all(reach))
    if name == "dto_kd_shared":
        return _shared(problem, optimizer, reached_by_all(reach))
    if name == "dto_kd_amortized":
        return _amortized(problem, optimizer, reach)
    weights = [1.0, weight] if name in FIXED else [1.0]
    return _fixed(problem, optimizer, jnp.array(weights, jnp.float32))


def make_measure(problem: Problem, reach: tuple[Any, ...]) -> Callable[..., dict]:
    """Makes a function that measures the gradients of the two losses.

    Args:
        problem: The losses.
        reach: What ``kdopt.reachable`` returns for these losses.

    Returns:
        A function of the arguments of ``problem.losses`` that returns cosine, conflict
        and dominance over the parameters that both losses reach.
    """
    both = reached_by_all(reach)

    def measure(*arguments: Any) -> dict[str, Array]:
        _, grads = kdopt.value_and_grads(problem.losses)(*arguments)
        kept = tuple(
            jax.tree.map(lambda x, keep: x if keep else jnp.zeros_like(x), tree, both)
            for tree in grads
        )
        found = diagnostics.summary(kdopt.gram(kept), names=NAMES)
        wanted = "cosine/distill", "conflict/distill", "dominance/distill"
        return {f"gradient/{key}": found[key] for key in wanted}

    return measure


def _fixed(
    problem: Problem, optimizer: optax.GradientTransformation, weights: Array
) -> Method:
    def step(
        state: State, batch: DetectionBatch, tokens: Any, key: Array
    ) -> tuple[State, dict[str, Array]]:
        values, grads = kdopt.value_and_weighted_grad(problem.losses)(
            state.params, batch, tokens, key, weights=weights
        )
        return _apply(state, optimizer, grads, values, weights)

    return Method(lambda params: State(params, optimizer.init(params), ()), step)


def _exact(problem: Problem, optimizer: Any, both: Any) -> Method:
    balancer = kdopt.restrict(kdopt.dto_kd(rescale="convex"), both)
    tx = optax.chain(balancer, optimizer)

    def step(
        state: State, batch: DetectionBatch, tokens: Any, key: Array
    ) -> tuple[State, dict[str, Array]]:
        values, grads = kdopt.value_and_grads(problem.losses)(
            state.params, batch, tokens, key
        )
        return _apply(state, tx, grads, values, None)

    return Method(lambda params: State(params, tx.init(params), ()), step)


def _shared(problem: Problem, optimizer: Any, both: Any) -> Method:
    balancer = kdopt.dto_kd(rescale="convex")
    grad_fn = kdopt.value_and_shared_grad(
        problem.encode, problem.heads, balancer, weigh_heads=both
    )

    def step(
        state: State, batch: DetectionBatch, tokens: Any, key: Array
    ) -> tuple[State, dict[str, Array]]:
        values, grads, found = grad_fn(
            state.params, batch, tokens, key, state=state.balancer
        )
        state = state._replace(balancer=found)
        return _apply(state, optimizer, grads, values, kdopt.loss_weights(found))

    def init(params: Any) -> State:
        return State(params, optimizer.init(params), balancer.init(params))

    return Method(init, step)


def _amortized(problem: Problem, optimizer: Any, reach: tuple[Any, ...]) -> Method:
    tx = optax.chain(optimizer, kdopt.dto_kd_amortized())
    both = reached_by_all(reach)

    def step(
        state: State, batch: DetectionBatch, tokens: Any, key: Array
    ) -> tuple[State, dict[str, Array]]:
        def weigh(values: Array) -> Array:
            return kdopt.loss_weights(state.optimizer, values)

        values, grads = kdopt.value_and_weighted_grad(problem.losses)(
            state.params, batch, tokens, key, weights=weigh
        )
        weights = weigh(values)
        # A leaf of one loss alone has only the weight of this loss to lose.
        grads = jax.tree.map(
            lambda x, shared, task: x if shared else x / weights[0 if task else 1],
            grads,
            both,
            reach[0],
        )
        return _apply(state, tx, grads, values, weights)

    return Method(lambda params: State(params, tx.init(params), ()), step)


def _apply(
    state: State, tx: Any, grads: Any, values: Array, weights: Array | None
) -> tuple[State, dict[str, Array]]:
    """Applies the optimiser; returns the new state and the metrics of the step."""
    with_extra = optax.with_extra_args_support(tx)
    updates, optimizer = with_extra.update(
        grads, state.optimizer, state.params, values=values
    )
    params = optax.apply_updates(state.params, updates)
    if weights is None:
        weights = kdopt.loss_weights(optimizer)
    metrics = {f"loss/{n}": v for n, v in zip(NAMES, values, strict=False)}
    metrics |= {f"weight/{n}": w for n, w in zip(NAMES, weights, strict=False)}
    return State(params, optimizer, state.balancer), metrics
