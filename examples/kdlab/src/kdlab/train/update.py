"""One step on a batch, in the way of its plan, for networks without other state."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

import kdopt
from kdlab.train.methods import Plan


class Update(NamedTuple):
    """How one step changes the parameters.

    Attributes:
        init: Maps parameters to the initial state.
        apply: Maps parameters, state and batch to new parameters and state.
    """

    init: Callable[[Any], Any]
    apply: Callable[[Any, Any, Any], tuple[Any, Any]]


def make_update(
    plan: Plan,
    encode: Callable[[Any, Any], Any],
    head: Callable[[Any, Any, Any], tuple[jax.Array, ...]],
) -> Update:
    """Makes the update of a plan.

    Args:
        plan: How gradients are computed and combined.
        encode: Maps parameters and a batch to the outputs of the network.
        head: Maps parameters, these outputs and the batch to the losses.
    """

    def losses_fn(params: Any, batch: Any) -> tuple[jax.Array, ...]:
        return head(params, encode(params, batch), batch)

    def init(params: Any) -> tuple[Any, Any]:
        at_outputs = () if plan.balancer is None else plan.balancer.init(params)
        return plan.tx.init(params), at_outputs

    def apply(params: Any, states: Any, batch: Any) -> tuple[Any, Any]:
        state, at_outputs = states
        found: Any
        if plan.balancer is not None:
            shared = kdopt.value_and_shared_grad(
                encode, head, plan.balancer, weigh_heads=plan.weigh_heads
            )
            found = shared(params, batch, state=at_outputs)
            values, grads, at_outputs = found
        elif plan.weights is not None:
            weigh = functools.partial(plan.weights, state)
            found = kdopt.value_and_weighted_grad(losses_fn)(
                params, batch, weights=weigh
            )
            values, grads = found
        else:
            values, grads = kdopt.value_and_grads(losses_fn)(params, batch)
        updates, state = plan.tx.update(
            grads,
            state,
            params,
            values=values,
            value_fn=lambda params: losses_fn(params, batch),
        )
        return optax.apply_updates(params, updates), (state, at_outputs)

    return Update(init, apply)
