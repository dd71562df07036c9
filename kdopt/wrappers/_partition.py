"""A separate balancer for each group of parameters."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import optax

from kdopt._masks import fill, mask_tree, select
from kdopt._typing import Balancer
from kdopt.wrappers._inner import any_per_loss_tuple


class PartitionState(NamedTuple):
    """State of :func:`partition` and :func:`per_layer`.

    Attributes:
        inner_states: The state of each balancer, by label. For the weights of a group:
            ``kdopt.loss_weights(state.inner_states[label])``.
    """

    inner_states: dict[str, Any]


def partition(balancers: Mapping[str, Balancer], labels: Any) -> Balancer:
    r"""Balances each group of parameters separately.

    .. math:: u_p = \mathrm{balance}_p(g_{1,p}, \dots, g_{K,p}) \quad
        \text{for each group } p

    Args:
        balancers: A balancer for each label: use :func:`kdopt.linear` where nothing is
            to be balanced.
        labels: Tree of strings like params, a prefix of it, or a function from params
            to one.

    Returns:
        The transform. Each group has its own weights, so :func:`kdopt.loss_weights`
        must be given a part of the state: ``state.inner_states[label]``.

    Raises:
        ValueError: If a label has no balancer.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.partition(
        ...     {"deep": kdopt.min_norm(), "flat": kdopt.linear([1.0, 1.0])},
        ...     {"trunk": "deep", "head": "flat"},
        ... )
        >>> params = {"trunk": jnp.zeros(3), "head": jnp.zeros(1)}
        >>> task = {"trunk": jnp.array([-4.0, 1.0, 1.0]), "head": jnp.array([5.0])}
        >>> distill = {"trunk": jnp.array([6.0, 1.0, 1.0]), "head": jnp.array([2.0])}
        >>> update, state = tx.update((task, distill), tx.init(params), params)
        >>> print(update["head"], kdopt.loss_weights(state.inner_states["deep"]))
        [7.] [0.6 0.4]
    """
    inner = {k: optax.with_extra_args_support(tx) for k, tx in balancers.items()}

    def groups(like: Any) -> dict[str, Any]:
        tree = mask_tree(labels, like)
        unknown = sorted(set(jax.tree.leaves(tree)) - set(inner))
        if unknown:
            raise ValueError(
                f"No balancer for the labels {unknown}; there are balancers for "
                f"{sorted(inner)}. Add one: kdopt.linear sums without balancing."
            )
        return {
            label: jax.tree.map(lambda x, label=label: x == label, tree)
            for label in inner
        }

    def init_fn(params: optax.Params) -> PartitionState:
        flags = groups(params)
        return PartitionState(
            {
                label: tx.init(select(params, flags[label]))
                for label, tx in inner.items()
            }
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, PartitionState]:
        grads = any_per_loss_tuple(updates, params)
        flags = groups(grads[0] if params is None else params)
        merged, states = grads[0], {}
        for label, tx in inner.items():
            update, states[label] = tx.update(
                tuple(select(tree, flags[label]) for tree in grads),
                state.inner_states[label],
                None if params is None else select(params, flags[label]),
                **extra_args,
            )
            merged = fill(update, flags[label], merged)
        return merged, PartitionState(states)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def per_layer(balancer: Balancer, *, depth: int | None = None) -> Balancer:
    r"""Balances each leaf, or each layer, separately.

    Gradients may agree in one layer and conflict in the next; one set of weights for
    all is then a compromise. The price is the noise of small Gram matrices.

    Args:
        balancer: The balancer of every group.
        depth: Leaves whose paths agree in this many first entries form a group: 1
            groups by the outermost module. By default every leaf is a group.

    Returns:
        The transform; its state is a :class:`kdopt.wrappers.PartitionState`, with paths
        for labels.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.per_layer(kdopt.min_norm())
        >>> params = {"a": jnp.zeros(3), "b": jnp.zeros(1)}
        >>> task = {"a": jnp.array([-4.0, 1.0, 1.0]), "b": jnp.array([5.0])}
        >>> distill = {"a": jnp.array([6.0, 1.0, 1.0]), "b": jnp.array([2.0])}
        >>> update, _ = tx.update((task, distill), tx.init(params), params)
        >>> print(update["a"], update["b"])
        [0. 1. 1.] [2.]
    """

    def label(path: tuple) -> str:
        return jax.tree_util.keystr(path[:depth])

    def labels(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: label(path), tree)

    def grouped(params: Any) -> Balancer:
        names = sorted(set(jax.tree.leaves(labels(params))))
        return partition(dict.fromkeys(names, balancer), labels)

    def init_fn(params: optax.Params) -> Any:
        return grouped(params).init(params)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        grads = any_per_loss_tuple(updates, params)
        return grouped(grads[0]).update(grads, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
