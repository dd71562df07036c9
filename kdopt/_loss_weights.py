"""Weights of the losses in the states of balancers and scalarizers."""

from typing import Any

import jax

from kdopt._present import clear_values, present_mask
from kdopt._typing import PresentLike, Weights


def loss_weights(
    opt_state: Any, values: Any = None, *, present: PresentLike = None
) -> Weights:
    """Reads the weights of the losses out of an optimiser state.

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
    found = [node.loss_weights for node in nodes if has_weights(node)]
    if not found:
        raise ValueError(
            "Expected one balancer or scalarizer with weights in the optimiser state, "
            "found 0. Those that keep momenta (dot, streams) or work on each element "
            "(graddrop, trimmed_mean) have none; kdopt.diagnostics.buffers looks into "
            "the momenta of dot."
        )
    if len(found) > 1:
        raise ValueError(
            f"Expected one balancer or scalarizer in the optimiser state, found "
            f"{len(found)}: pass the part of the state that belongs to it."
        )
    weights = found[0]
    if callable(weights):
        weights = weights(values) if present is None else weights(values, present)
    return clear_values(weights, present_mask(present, len(weights)))


def unwrap(tree: Any) -> Any:
    """Arrays in place of the variables in which ``flax.nnx.Optimizer`` wraps them."""

    def is_variable(node: Any) -> bool:
        return hasattr(node, "get_value")

    return jax.tree.map(
        lambda x: x.get_value() if is_variable(x) else x, tree, is_leaf=is_variable
    )


def check_weighs_grads(state: Any, user: str) -> None:
    """Checks that a balancer's update is the gradients combined with its weights.

    Raises:
        ValueError: If its state does not itself hold the weights, as that of a chain,
            or holds those of other trees, such as running means of the gradients.
    """
    own = getattr(state, "inner_state", state)  # that of optax.inject_hyperparams
    weights = getattr(own, "loss_weights", None)
    if weights is None or callable(weights) or hasattr(own, "traces"):
        raise ValueError(
            f"{user} needs a balancer whose own state holds the weights of the "
            f"gradients, got a {type(state).__name__}. Give it the balancer alone, and "
            "put the rest of a chain, restrict, monitor and partition around it. dot "
            "and streams have no weights, and those of db_mtl and moco belong to "
            "running means of the gradients."
        )
