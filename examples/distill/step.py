"""The training step of a method: what it changes, and how it is compiled."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import kdopt
from examples.distill.methods import Plan
from examples.distill.observe import seen_in
from examples.distill.problem import Metrics, Network, Problem, Split, named


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
        metrics = named("loss", values)
        if used is not None:
            metrics |= named("weight", used)
        metrics |= seen_in(opt_state, balancer, values)
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
