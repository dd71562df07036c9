"""Weights of the losses in the states of balancers and scalarizers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdopt._present import clear_values, present_mask
from kdopt._transform import values_array
from kdopt._typing import PresentLike, Weights


class ValuesState(NamedTuple):
    """State of a scalarizer whose weights depend on the values of the same step.

    Each method has a class of its own, which adds the static ``weights_fn``:
    ``weights_fn(values, present=present, **settings, **memory)`` gives the weights for
    the next backward pass, ``[k]``.

    Attributes:
        loss_weights: Weights of the last step, ``[k]``; used again where those of this
            step are not finite.
        settings: Hyper-parameters by name, as arrays.
        memory: State of the method itself, by name; ``{}`` if none.
        notfinite_count: Number of skipped steps, int32: those with values that were not
            finite, or that lack the logarithm the method needs.
        inner: State of the optimiser that moves the memory; ``()`` if none does.
    """

    loss_weights: Weights
    settings: dict[str, jax.Array]
    memory: dict[str, jax.Array]
    notfinite_count: jax.Array
    inner: Any = ()


def loss_weights(
    opt_state: Any, values: Any = None, *, present: PresentLike = None
) -> Weights:
    """Reads the weights of the losses from an optimiser state.

    Args:
        opt_state: State of a balancer or scalarizer, or of a chain that holds one.
        values: Loss values of this step, ``[k]``; needed only by scalarizers whose
            weights depend on them.
        present: Which losses are present, ``[k]``; an absent one has the weight 0.

    Returns:
        ``[k]``: for a balancer the weights of the last step, for a scalarizer those
        that the next backward pass must use.

    Raises:
        ValueError: If the state holds no weights, or more than one set of them.

    Examples:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import kdopt
        >>> tx = optax.chain(kdopt.min_norm(), optax.sgd(0.1))
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> _, state = tx.update(grads, tx.init(jnp.zeros(3)))
        >>> print(kdopt.loss_weights(state))
        [0.6 0.4]
    """

    def has_weights(node: Any) -> bool:
        return hasattr(node, "loss_weights")

    plain = unwrap(opt_state)
    nodes = jax.tree.leaves(plain, is_leaf=has_weights)
    found = [node for node in nodes if has_weights(node)]
    if not found:
        raise ValueError(
            "Expected one balancer or scalarizer with weights in the optimiser state, "
            "found 0. Those that keep momenta (dot, streams) or work elementwise "
            "(graddrop, trimmed_mean) have none; kdopt.diagnostics.buffers reports "
            "on the momenta of dot."
        )
    if len(found) > 1:
        raise ValueError(
            f"Expected one balancer or scalarizer in the optimiser state, found "
            f"{len(found)}: pass the part of the state that belongs to it."
        )
    weights = found[0].loss_weights
    if isinstance(found[0], ValuesState):
        weights = weights_of_values(found[0], values, present)
    return clear_values(weights, present_mask(present, len(weights)))


def weights_of_values(state: Any, values: Any, present: PresentLike) -> Weights:
    """Returns the weights for the next backward pass; the last ones if not finite.

    Raises:
        ValueError: If there are no values, or not one per loss.
    """
    if values is None:
        raise ValueError(
            "The weights of this scalarizer depend on the loss values: use "
            "kdopt.loss_weights(opt_state, values), or pass value_and_weighted_grad "
            "weights=lambda values: kdopt.loss_weights(opt_state, values)."
        )
    last = state.loss_weights
    array = values_array(values, len(last), last.dtype, present)
    mask = present_mask(present, len(last))
    fresh = state.weights_fn(array, present=mask, **state.settings, **state.memory)
    return jnp.where(jnp.all(jnp.isfinite(fresh)), fresh, last)


def unwrap(tree: Any) -> Any:
    """Replaces the variables of ``flax.nnx.Optimizer`` by their arrays."""

    def is_variable(node: Any) -> bool:
        return hasattr(node, "get_value")

    return jax.tree.map(
        lambda x: x.get_value() if is_variable(x) else x, tree, is_leaf=is_variable
    )


def check_weighs_grads(state: Any, user: str) -> None:
    """Checks that a balancer's update is the gradients combined with its weights.

    Raises:
        ValueError: If its state does not itself hold the weights (a chain), or holds
            those of other trees, such as running means of the gradients.
    """
    own = getattr(state, "inner_state", state)  # that of optax.inject_hyperparams
    weighs_losses = isinstance(own, ValuesState) or not hasattr(own, "loss_weights")
    if weighs_losses or hasattr(own, "traces"):
        raise ValueError(
            f"{user} needs a balancer whose own state holds the weights of the "
            f"gradients, got a {type(state).__name__}. Pass the balancer alone, and "
            "put the rest of a chain, restrict, monitor and partition around it. dot "
            "and streams have no weights, and those of db_mtl and moco belong to "
            "running means of the gradients."
        )
