"""The arms of the comparison: every method, its settings, and what it costs."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import kdopt
from kdlab.regret.objective import GRID, Knobs
from kdlab.regret.steps import (
    Program,
    Student,
    follow_plan,
    follow_reference,
    learn_by_slopes,
    search,
)
from kdlab.train.methods import (
    Method,
    Numbers,
    Plan,
    dot,
    dto_kd_shared,
    make_optimizer,
)

RATES = (0.5, 1.0, 2.0)
"""Learning rates to try, relative to that of the task."""


def _sum_to_one(balancer: Any) -> optax.GradientTransformationExtraArgs:
    """Divides the update of a balancer by the sum of its weights.

    So methods at one learning rate differ in the balance alone.
    """

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple:
        combined, state = balancer.update(updates, state, params, **extra)
        total = jnp.maximum(jnp.sum(kdopt.loss_weights(state)), 1e-12)
        return jax.tree.map(lambda x: x / total, combined), state

    return optax.GradientTransformationExtraArgs(balancer.init, update)


def _task_limited(knobs: Knobs) -> optax.GradientTransformationExtraArgs:
    """Lowest distillation loss with the task loss at most at the limit."""
    barrier = kdopt.dynamic_barrier(knobs.limit)

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        values: Any = None,
        **extra: Any,
    ) -> tuple:
        swapped, values = updates[::-1], values[::-1]
        return barrier.update(swapped, state, params, values=values, **extra)

    return optax.GradientTransformationExtraArgs(barrier.init, update)


def _balanced(make: Callable[[Knobs], Any]) -> Callable[[Student], Program]:
    def plan(numbers: Numbers, knobs: Knobs) -> Plan:
        optimizer = make_optimizer(numbers, knobs.schedule)
        return Plan(optax.chain(_sum_to_one(make(knobs)), optimizer))

    return functools.partial(follow_plan, make=plan)


def _scalarized(make: Callable[[Knobs], Any]) -> Callable[[Student], Program]:
    def weigh(state: Any, values: jax.Array) -> jax.Array:
        weights = kdopt.loss_weights(state, values)
        return weights / jnp.sum(weights)

    def plan(numbers: Numbers, knobs: Knobs) -> Plan:
        optimizer = make_optimizer(numbers, knobs.schedule)
        return Plan(optax.chain(optimizer, make(knobs)), weights=weigh)

    return functools.partial(follow_plan, make=plan)


def _known(method: Method) -> Callable[[Student], Program]:
    """A method of experiments and studies, as it is there."""
    return functools.partial(
        follow_plan, make=lambda numbers, knobs: method(numbers, knobs.schedule)
    )


PROGRAMS: dict[str, Callable[[Student], Program]] = {
    "fixed": _scalarized(
        lambda knobs: kdopt.weighted_sum((1 - knobs.weight, knobs.weight))
    ),
    "dto_kd": _balanced(lambda _: kdopt.dto_kd(rescale="convex")),
    "dto_kd_shared": _known(dto_kd_shared),
    "dto_kd_amortized": _scalarized(lambda _: kdopt.dto_kd_amortized()),
    "dynamic_lambda": _balanced(
        lambda knobs: kdopt.dynamic_lambda(policy="safe", lambda_=knobs.weight)
    ),
    "dot": _known(dot),
    "min_norm": _balanced(lambda _: kdopt.min_norm()),
    "upgrad": _balanced(lambda _: kdopt.upgrad()),
    "nash_mtl": _balanced(lambda _: kdopt.nash_mtl()),
    "pcd": _balanced(lambda _: kdopt.pcd()),
    "task_at_most_teacher": _balanced(_task_limited),
    "famo": _scalarized(lambda _: kdopt.famo()),
    "uncertainty": _scalarized(lambda _: kdopt.uncertainty()),
    "magnitude_match": _scalarized(lambda _: kdopt.magnitude_match()),
    "reference_cosine": lambda student: follow_reference(student, "cosine"),
    "reference_nearest": lambda student: follow_reference(student, "nearest"),
    "hypergradient": learn_by_slopes,
    "hypergradient_sparse": lambda student: learn_by_slopes(student, sparse=True),
    "weight_search": search,
}
"""From a student to the compiled training, by name."""


class Arm(NamedTuple):
    """A method with its settings.

    Attributes:
        program: Name of its program; arms of one program share the compiled step.
        cost: Time of a step relative to that of ``fixed``, printed by ``kdlab regret
            --time-steps`` on one core.
        weight: Weight of the distillation loss, where it is fixed.
        rate: Learning rate relative to that of the task.
    """

    program: str
    cost: float = 1.3
    weight: float = 0.5
    rate: float = 1.0


def name_fixed(weight: float, rate: float = 1.0) -> str:
    """Name of the arm of a fixed weight."""
    return f"fixed {weight:g}" + _suffix(rate)


def name_dot(rate: float) -> str:
    """Name of the arm of DOT at a learning rate."""
    return "dot" + _suffix(rate)


def _suffix(rate: float) -> str:
    return "" if rate == 1 else f", rate x{rate:g}"


ARMS: dict[str, Arm] = {
    **{name_fixed(weight): Arm("fixed", 1, weight) for weight in GRID},
    **{name_fixed(0.5, rate): Arm("fixed", 1, 0.5, rate) for rate in RATES},
    **{name_dot(rate): Arm("dot", 1.3, 0.5, rate) for rate in RATES},
    **{
        name: Arm(name, 1.3)
        for name in ("dto_kd", "min_norm", "upgrad", "nash_mtl", "pcd")
    },
    "task_at_most_teacher": Arm("task_at_most_teacher", 1.3),
    "dynamic_lambda from 0.9": Arm("dynamic_lambda", 1.3, 0.9),
    **{
        name: Arm(name, 1)
        for name in (
            *("dto_kd_shared", "dto_kd_amortized"),
            *("uncertainty", "magnitude_match"),
        )
    },
    "famo": Arm("famo", 1.4),
    "reference_cosine": Arm("reference_cosine", 2.3),
    "reference_nearest": Arm("reference_nearest", 2.3),
    "hypergradient": Arm("hypergradient", 2.5),
    "hypergradient, every 4th step": Arm("hypergradient_sparse", 1.4),
    "weight_search": Arm("weight_search", 1.2),
}
"""All arms, by the name that tables show."""
