"""A separate Optax transform for the gradient of each loss."""

from typing import Any

import optax

from kdopt._transform import per_loss_tuple
from kdopt._typing import PresentLike


def each(*transforms: optax.GradientTransformation) -> Any:
    r"""Applies an ordinary transform to the gradient of each loss.

    .. math:: g_i \leftarrow T_i(g_i)

    Put it before the balancer: weight decay only for the task, clipping per loss.

    Args:
        *transforms: K Optax transforms, one per loss, the task first;
            ``optax.identity()`` leaves a gradient as it is.

    Returns:
        A transform from a tuple of K trees to a tuple of K trees. Its state is the
        tuple of their states.

    Raises:
        ValueError: If no transform is given.

    Examples:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import kdopt
        >>> tx = optax.chain(
        ...     kdopt.each(optax.add_decayed_weights(0.5), optax.identity()),
        ...     kdopt.linear([1.0, 1.0]),
        ... )
        >>> params, grads = jnp.array([4.0]), (jnp.array([1.0]), jnp.array([10.0]))
        >>> update, _ = tx.update(grads, tx.init(params), params)
        >>> print(update)
        [13.]
    """
    if not transforms:
        raise ValueError("each needs one transform per loss, got none.")
    extended = [optax.with_extra_args_support(tx) for tx in transforms]

    def init_fn(params: optax.Params) -> tuple:
        return tuple(tx.init(params) for tx in extended)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, tuple]:
        grads = per_loss_tuple(updates, params, len(extended), present)
        pairs = [
            tx.update(g, s, params, **extra_args)
            for tx, g, s in zip(extended, grads, state, strict=True)
        ]
        return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
