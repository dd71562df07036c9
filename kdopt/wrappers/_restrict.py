"""Balancing of some parameters, with the gradients of the rest summed."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from kdopt._gram import combine
from kdopt._masks import fill, mask_tree, select
from kdopt._typing import Balancer, PresentLike
from kdopt.wrappers._inner import any_per_loss_tuple


class RestrictState(NamedTuple):
    """State of :func:`restrict`: the state of the balancer."""

    inner: Any


def restrict(balancer: Balancer, mask: Any) -> Balancer:
    r"""Balances the masked parameters and sums the gradients of all others.

    .. math::
        u_\theta = \begin{cases} \mathrm{balance}(g_{1,\theta}, \dots, g_{K,\theta}) &
            \theta \in \text{mask} \\ \sum_i g_{i,\theta} & \text{else} \end{cases}

    For a trunk that all losses share and heads that they do not: the Gram matrix is
    that of the trunk, and a head follows its own loss whatever the weights are.

    Args:
        balancer: Any balancer, or a chain that begins with one and keeps the structure.
        mask: Tree of bools like params, a prefix of it, or a function from params to
            one.

    Returns:
        The transform; ``kdopt.loss_weights`` reads the weights of the masked part.

    Raises:
        ValueError: If the mask does not fit the parameters.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.restrict(kdopt.min_norm(), {"trunk": True, "head": False})
        >>> params = {"trunk": jnp.zeros(3), "head": jnp.zeros(1)}
        >>> task = {"trunk": jnp.array([-4.0, 1.0, 1.0]), "head": jnp.array([5.0])}
        >>> distill = {"trunk": jnp.array([6.0, 1.0, 1.0]), "head": jnp.array([0.0])}
        >>> update, _ = tx.update((task, distill), tx.init(params), params)
        >>> print(update["trunk"], update["head"])
        [0. 1. 1.] [5.]
    """
    inner = optax.with_extra_args_support(balancer)

    def init_fn(params: optax.Params) -> RestrictState:
        return RestrictState(inner.init(select(params, mask_tree(mask, params))))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, RestrictState]:
        grads = any_per_loss_tuple(updates, params, present)
        flags = mask_tree(mask, grads[0] if params is None else params)
        balanced, inner_state = inner.update(
            tuple(select(tree, flags) for tree in grads),
            state.inner,
            None if params is None else select(params, flags),
            present=present,
            **extra_args,
        )
        summed = combine(grads, jnp.ones(len(grads)))
        return fill(balanced, flags, summed), RestrictState(inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
