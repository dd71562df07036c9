"""One scalar whose gradient is the balanced one, for trainers that differentiate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdopt._differentiate import check_differentiable
from kdopt._gram import gram
from kdopt._typing import Balancer, Gram, PresentLike, Scalar, Values, Weights
from kdopt.diagnostics import conflicts, cosines
from kdopt.per_loss import balance_shared, stacked_vjp, with_losses


class BalancedAux(NamedTuple):
    """Auxiliary output of :func:`balanced_loss`: what to log, and the next state.

    Attributes:
        values: The losses, ``[k]``.
        weights: Their weights, ``[k]``.
        gram: Gram matrix of their gradients at the shared representation, ``[k, k]``.
        cosines: Cosines between these gradients, ``[k, k]``.
        conflicts: 1 for each pair whose cosine is negative, ``[k, k]``.
        state: The new state of the balancer.
    """

    values: Values
    weights: Weights
    gram: Gram
    cosines: Gram
    conflicts: Gram
    state: Any


def balanced_loss(
    losses_fn: Callable[[Any], Any],
    shared: Any,
    balancer: Balancer,
    *,
    state: Any = None,
    present: PresentLike = None,
    axis_name: str | None = None,
) -> tuple[Scalar, BalancedAux]:
    r"""Combines K losses into one scalar whose gradient is the balanced one.

    .. math::
        L = \sum_i \mathrm{sg}(w_i) \, L_i(z), \qquad
        w = \mathrm{balance}(\nabla_z L_1, \dots, \nabla_z L_K)

    For trainers that call ``jax.value_and_grad`` themselves and expect a single loss.
    Its gradient is that of :func:`kdopt.value_and_shared_grad`, whatever the trainer
    adds: accumulation, sharding, ``jax.checkpoint``. One backward pass runs through the
    network, K + 1 through ``losses_fn``.

    Args:
        losses_fn: ``losses_fn(z)`` returns K scalar losses. It may close over labels
            and over parameters downstream of ``z``, such as those of a head, which also
            get the weighted sum of their gradients.
        shared: The representation :math:`z`, any pytree, such as the logits or the
            last hidden states. It must depend on the parameters.
        balancer: See :func:`kdopt.value_and_shared_grad`.
        state: The balancer's state: ``balancer.init(shared)`` before the first step,
            then ``aux.state`` of the last one. None for a balancer that keeps no state,
            whose weights depend only on the gradients of the step.
        present: Which losses are present, ``[k]``.
        axis_name: Mesh axis, inside ``jax.shard_map``, over which the trainer averages
            gradients.

    Returns:
        The scalar and a :class:`BalancedAux`, for use with ``has_aux=True``.

    Raises:
        ValueError: If the losses are not scalars, the balancer has no weights, or it
            keeps a state and ``state`` is None.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> balancer = kdopt.min_norm()
        >>> def loss_fn(params, x):
        ...     def losses_fn(z):
        ...         return jnp.sum(z**2), jnp.sum((z - 1) ** 2)
        ...     return kdopt.balanced_loss(losses_fn, x @ params, balancer)
        >>> params, x = jnp.array([1.0, -1.0]), jnp.eye(2)
        >>> (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, x)
        >>> print(loss, grads, aux.weights, aux.cosines[0, 1])
        2.0 [ 2. -2.] [1. 0.] 0.70710677

    Notes:
        A trainer that accumulates gradients calls this once per micro-batch, so the
        weights are those of each micro-batch and not of the whole batch. With fixed
        weights there is no difference.
    """
    check_differentiable(shared)
    if state is None:
        state = _fresh_state(balancer, shared)

    split = with_losses(losses_fn, False, present, axis_name)
    # One trace; what the losses close over is not differentiated for the weights.
    pure, consts = jax.closure_convert(lambda z: jnp.stack(split(z)[0]), shared)
    fixed = jax.lax.stop_gradient(consts)
    values, pullback, _ = stacked_vjp(
        lambda z: (tuple(pure(z, *fixed)), None), (jax.lax.stop_gradient(shared),)
    )
    found = balance_shared(
        balancer,
        state,
        shared,
        values,
        lambda row: pullback(row)[0],
        present,
        axis_name,
    )
    matrix = gram(found.grads, axis_name=axis_name)
    loss = jnp.sum(jax.lax.stop_gradient(found.weights) * pure(shared, *consts))
    aux = BalancedAux(
        found.values,
        found.weights,
        matrix,
        cosines(matrix),
        conflicts(matrix),
        found.state,
    )
    return loss, jax.lax.stop_gradient(aux)


def _fresh_state(balancer: Balancer, shared: Any) -> Any:
    """Returns the state of a balancer that keeps none between steps.

    Raises:
        ValueError: If it keeps one.
    """
    state = balancer.init(shared)
    if jax.tree.leaves(getattr(state, "inner", state)):
        raise ValueError(
            "This balancer keeps a state between steps: pass state=, "
            "balancer.init(shared) before the first step and aux.state from then on."
        )
    return state
