"""Gradient diagnostics, read from the states of a step at no extra cost."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

import kdopt
from kdopt.wrappers import GuardState

PAIR = "task", "distill"


def seen_in(
    opt_state: Any, balancer: Any, values: Any, names: Sequence[str] = PAIR
) -> dict[str, jax.Array]:
    """Returns the diagnostics of a step, read from the states after it.

    Args:
        opt_state: State of the optimiser after the update. A Gram matrix or a
            :func:`kdopt.monitor` in it gives ``gradient/...``, on the gradients of all
            balanced parameters; momentum buffers give ``buffer/...``; a
            :func:`kdopt.guard` gives ``update/...``, the effect of the chain's own
            update on each loss.
        balancer: State of a balancer at the logits; its Gram matrix gives
            ``shared/...``.
        values: The loss values, task first.
        names: Names of the losses.

    Returns:
        Scalars by name; empty for a method with none of these.
    """
    out = {}
    losses = jnp.stack([jnp.asarray(value) for value in values])
    for place, state in (("gradient", opt_state), ("shared", balancer)):
        for node in _states(state, kdopt.WeightsState):
            if 1 < len(node.gram) == len(losses):
                seen = kdopt.diagnostics.summary(
                    node.gram, node.loss_weights, losses, names=names[: len(losses)]
                )
                out |= _named(place, seen)
    for _, metrics in optax.tree.get_all_with_path(opt_state, "metrics"):
        out |= _named("gradient", metrics)
    for _, traces in optax.tree.get_all_with_path(opt_state, "traces"):
        if len(traces) == len(names):
            out |= kdopt.diagnostics.buffers(traces, names=names)
    for node in _states(opt_state, GuardState):
        if len(node.cosines) == len(names):
            out |= _effects(node, names)
    return out


def _effects(state: GuardState, names: Sequence[str]) -> dict[str, jax.Array]:
    """Returns cosines of the chain's own update, and changes by the applied one."""
    out = {}
    for i, name in enumerate(names):
        out[f"update/cosine/{name}"] = state.cosines[i]
        out[f"update/rises/{name}"] = (state.cosines[i] < 0).astype(jnp.float32)
        out[f"update/change/{name}"] = state.changes[i]
    return out


def _named(place: str, seen: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Prefixes names, leaving out losses and weights, which are logged anyway."""
    return {
        f"{place}/{name}": value
        for name, value in seen.items()
        if not name.startswith(("loss/", "weight/"))
    }


def _states(state: Any, kind: type) -> list[Any]:
    def found(node: Any) -> bool:
        return isinstance(node, kind)

    return [node for node in jax.tree.leaves(state, is_leaf=found) if found(node)]
