"""What the wrappers share: looking into the wrapped transform and its gradients."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdopt._transform import per_loss_tuple
from kdopt._typing import PerLossGrads


def any_per_loss_tuple(updates: Any, params: Any) -> PerLossGrads:
    """Lets gradient trees in, however many; the wrapped balancer knows how many."""
    counted = isinstance(updates, (tuple, list, Mapping))
    return per_loss_tuple(updates, params, len(updates) if counted else 2)


def check_holds_weights(state: Any, wrapper: str) -> None:
    """Checks that the wrapped transform is a balancer that weights whole gradients.

    Raises:
        ValueError: If its state does not itself hold the weights. In a chain what
            follows the balancer would be lost when the gradients are combined anew.
    """
    if not hasattr(state, "loss_weights") or callable(state.loss_weights):
        raise ValueError(
            f"{wrapper} needs a balancer whose own state holds the weights of the "
            f"losses, got one with the state {type(state).__name__}. Wrap the balancer "
            f"alone, optax.chain({wrapper}(...), the rest), and put restrict, monitor "
            f"and partition around {wrapper}; dot and streams have no weights."
        )


def mask_tree(mask: Any, like: Any) -> Any:
    """A mask, a prefix of one or a function to it, with one entry per leaf."""
    chosen = mask(like) if callable(mask) else mask
    try:
        return jax.tree.broadcast(chosen, like)
    except ValueError as error:
        raise ValueError(
            "The mask or labels must have the structure of params, be a prefix of it, "
            f"or a function from params to one: {error}"
        ) from error


def select(tree: Any, flags: Any) -> Any:
    """Takes the unmarked leaves out; what is left has a structure of its own."""
    return jax.tree.map(lambda x, on: x if on else optax.MaskedNode(), tree, flags)


def fill(selected: Any, flags: Any, other: Any) -> Any:
    """Puts the leaves of another tree where :func:`select` took them out."""
    leaves = iter(jax.tree.leaves(selected))
    return jax.tree.map(lambda on, x: next(leaves) if on else x, flags, other)


def update_if(
    run: jax.Array, update: Callable[[], tuple[Any, Any]], state: Any
) -> tuple[Any, Any]:
    """The update and new state, or without running it zeros and the old state."""
    shapes, _ = jax.eval_shape(update)

    def zeros(like: Any) -> jax.Array:
        zero = jnp.zeros(like.shape, like.dtype)
        # Inside shard_map both branches must agree on what differs by device.
        manual = getattr(like, "manual_axis_type", None)
        if manual is None or not manual.varying:
            return zero
        return jax.lax.pcast(zero, tuple(manual.varying), to="varying")

    def hold() -> tuple[Any, Any]:
        return jax.tree.map(zeros, shapes), state

    return jax.lax.cond(run, update, hold)
