"""Three ways to get gradients of several losses, all with one forward pass."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdopt._transform import loss_weights
from kdopt._typing import Balancer, PerLossGrads, Values, Weights

LossesFn = Callable[..., Any]


def value_and_grads(
    losses_fn: LossesFn,
    *,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    axis_name: str | None = None,
) -> Callable[..., Any]:
    r"""Differentiates each of K losses: one forward pass, K backward passes.

    .. math:: (L_1, \dots, L_K), \quad (\nabla L_1, \dots, \nabla L_K)

    The forward pass runs once, so that BatchNorm statistics and dropout keys are used
    once. The pullbacks run in sequence; their cost is what separates exact balancing
    from :func:`value_and_shared_grad`.

    Args:
        losses_fn: ``losses_fn(*args, **kwargs)`` returns the K scalar losses, a tuple
            or an array ``[k]``; with ``has_aux`` a pair ``(losses, aux)``.
        argnums: Argument(s) to differentiate with respect to, as in ``jax.grad``.
        has_aux: Whether the function returns auxiliary data.
        axis_name: Mesh axis of data parallelism, inside ``jax.shard_map`` or
            ``jax.pmap``: values and gradients are averaged over it, before any Gram
            matrix is taken. Not needed under ``jax.jit`` with shardings.

    Returns:
        A function of the same arguments that returns ``(values, grads)``, or
        ``((values, aux), grads)``: values ``[k]``, and a tuple of K gradients.

    Raises:
        ValueError: If the losses are not scalars.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> def losses_fn(x):
        ...     return jnp.sum(x**2), jnp.sum((x - 1) ** 2)
        >>> values, grads = kdopt.value_and_grads(losses_fn)(jnp.array([2.0, 3.0]))
        >>> print(values, *grads)
        [13.  5.] [4. 6.] [2. 4.]
    """

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        fn, primals, single = _closed(losses_fn, argnums, args, kwargs)
        primals = _replica_local(primals, axis_name)
        losses, tangents, aux = _linearize(fn, primals, has_aux)
        grads: PerLossGrads = tuple(
            _transpose(tangents, i, loss, primals, single)
            for i, loss in enumerate(losses)
        )
        values, grads = _mean((jnp.stack(losses), grads), axis_name)
        return ((values, aux) if has_aux else values), grads

    return wrapped


def value_and_weighted_grad(
    losses_fn: LossesFn,
    *,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    axis_name: str | None = None,
) -> Callable[..., Any]:
    r"""Differentiates a weighted sum of K losses: one backward pass.

    .. math:: (L_1, \dots, L_K), \quad \sum_i w_i \nabla L_i

    For weights that are known before the backward pass: fixed ones, and those of a
    scalarizer, which live in the optimiser state.

    Args:
        losses_fn: As for :func:`value_and_grads`.
        argnums: Argument(s) to differentiate with respect to.
        has_aux: Whether the function returns auxiliary data.
        axis_name: Mesh axis over which values and gradient are averaged.

    Returns:
        A function of the same arguments and the keyword ``weights``, which is an array
        ``[k]`` or a function from values ``[k]`` to it. It returns ``(values, grads)``
        or ``((values, aux), grads)``, with one gradient tree.

    Raises:
        ValueError: If the losses are not scalars, or there are not K weights.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> def losses_fn(x):
        ...     return jnp.sum(x**2), jnp.sum((x - 1) ** 2)
        >>> grad_fn = kdopt.value_and_weighted_grad(losses_fn)
        >>> weights = jnp.array([0.1, 0.9])
        >>> values, grads = grad_fn(jnp.array([2.0, 3.0]), weights=weights)
        >>> print(values, grads)
        [13.  5.] [2.2 4.2]
    """

    def wrapped(
        *args: Any, weights: Weights | Callable[[Values], Weights], **kwargs: Any
    ) -> Any:
        fn, primals, single = _closed(losses_fn, argnums, args, kwargs)
        primals = _replica_local(primals, axis_name)
        values, pullback, aux = _vjp(fn, primals, has_aux)
        # The weights are the same on every replica: they come from averaged values.
        mean_values = _mean(values, axis_name)
        array = weights(mean_values) if callable(weights) else weights
        cotangent = jax.lax.stop_gradient(jnp.asarray(array, values.dtype))
        if cotangent.shape != values.shape:
            raise ValueError(
                f"Expected {len(values)} weights, one per loss, got an array of shape "
                f"{cotangent.shape}."
            )
        cotangent = _varying_as(values, cotangent)
        grads = _mean(_pull(pullback, cotangent, single), axis_name)
        return ((mean_values, aux) if has_aux else mean_values), grads

    return wrapped


def value_and_shared_grad(
    encode_fn: Callable[..., Any],
    losses_fn: LossesFn,
    balancer: Balancer,
    *,
    has_aux: bool = False,
    axis_name: str | None = None,
) -> Callable[..., Any]:
    r"""Balances at a shared representation: one backward pass through the network.

    .. math::
        z = f(\theta), \qquad
        u_z = \mathrm{balance}(\nabla_z L_1, \dots, \nabla_z L_K), \qquad
        u = \Big(\frac{\partial z}{\partial \theta}\Big)^{\!\top} u_z

    The K pullbacks run only through what lies behind ``z``, for logit distillation a
    few operations on ``[batch, classes]``, so that a step costs as much as a plain one.
    The Gram matrix is that of :math:`\nabla_z L_i`, not of :math:`\nabla_\theta L_i`:
    an upper bound in the literature (MGDA-UB), exact if the Jacobian of the network
    preserves angles.

    Args:
        encode_fn: ``encode_fn(params, *args)`` returns the representation ``z``, any
            pytree with the batch in front; with ``has_aux`` a pair ``(z, aux)``.
        losses_fn: ``losses_fn(params, z, *args)`` returns the K scalar losses. What it
            does with ``params`` itself (a regressor of features, say) is differentiated
            with the same weights.
        balancer: Any balancer that yields weights (not :func:`kdopt.dot`). Inside
            ``jax.shard_map`` give it the same ``axis_name``: there each replica holds
            its part of ``z``, so its Gram matrix is a sum over replicas.
        has_aux: Whether ``encode_fn`` returns auxiliary data.
        axis_name: Mesh axis over which values and gradient are averaged.

    Returns:
        A function ``(params, *args, state=balancer_state)`` that returns
        ``(values, grads, state)`` or ``((values, aux), grads, state)``: values ``[k]``,
        one gradient tree for any Optax optimiser, and the new state of the balancer,
        which began as ``balancer.init(params)``.

    Raises:
        ValueError: If the losses are not scalars, or the balancer keeps no weights.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> def encode_fn(params, x):
        ...     return x @ params
        >>> def losses_fn(params, z, x):
        ...     return jnp.sum(z**2), jnp.sum((z - 1) ** 2)
        >>> params, x = jnp.array([1.0, -1.0]), jnp.eye(2)
        >>> balancer = kdopt.min_norm()
        >>> grad_fn = kdopt.value_and_shared_grad(encode_fn, losses_fn, balancer)
        >>> values, grads, state = grad_fn(params, x, state=balancer.init(params))
        >>> print(values, grads, state.loss_weights)
        [2. 4.] [ 2. -2.] [1. 0.]

    References:
        Sener and Koltun, `Multi-Task Learning as Multi-Objective Optimization
        <https://arxiv.org/abs/1810.04650>`_, NeurIPS 2018, Eq. MGDA-UB
    """

    def wrapped(params: Any, *args: Any, state: Any) -> Any:
        local = _replica_local(params, axis_name)

        def encode(p: Any) -> tuple[Any, Any]:
            out = encode_fn(p, *args)
            return out if has_aux else (out, None)

        shared, encoder_pullback, aux = jax.vjp(encode, local, has_aux=True)

        def head(p: Any, z: Any) -> Any:
            return losses_fn(p, z, *args)

        values, head_pullback, _ = _vjp(head, (local, shared), has_aux=False)
        mean_values = _mean(values, axis_name)
        # A loss is a mean over all replicas, of which this one is a share.
        share = 1 if axis_name is None else jax.lax.axis_size(axis_name)
        shared_grads = tuple(
            head_pullback(row / share)[1] for row in _unit_rows(values)
        )
        _, state = balancer.update(shared_grads, state, shared, values=mean_values)
        try:
            weights = loss_weights(state)
        except ValueError as error:
            raise ValueError(
                "value_and_shared_grad needs a balancer whose state holds the weights "
                f"of the losses, got a {type(state).__name__} without them."
            ) from error
        weights = _varying_as(values, weights.astype(values.dtype))
        head_grads, cotangent = head_pullback(weights)
        (encoder_grads,) = encoder_pullback(cotangent)
        grads = _mean(jax.tree.map(jnp.add, encoder_grads, head_grads), axis_name)
        return ((mean_values, aux) if has_aux else mean_values), grads, state

    return wrapped


def _closed(
    fn: LossesFn, argnums: int | Sequence[int], args: tuple, kwargs: dict
) -> tuple[Callable[..., Any], tuple, bool]:
    """Closes a function over the arguments that are not differentiated."""
    single = isinstance(argnums, int)
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if any(not -len(args) <= n < len(args) for n in numbers):
        raise ValueError(
            f"argnums={argnums} asks for a positional argument that is not there: the "
            f"function was called with {len(args)} of them."
        )

    def partial(*primals: Any) -> Any:
        full = list(args)
        for n, primal in zip(numbers, primals, strict=True):
            full[n] = primal
        return fn(*full, **kwargs)

    return partial, tuple(args[n] for n in numbers), single


def _vjp(fn: Callable[..., Any], primals: tuple, has_aux: bool) -> tuple:
    """One forward pass; the losses as an array, their pullback and the aux data."""

    def stacked(*args: Any) -> tuple[Values, Any]:
        out = fn(*args)
        losses, aux = out if has_aux else (out, None)
        return _stack(losses), aux

    return jax.vjp(stacked, *primals, has_aux=True)


def _linearize(fn: Callable[..., Any], primals: tuple, has_aux: bool) -> tuple:
    """One forward pass; the K losses, their linear part and the aux data."""

    def split(*args: Any) -> tuple[tuple[jax.Array, ...], Any]:
        out = fn(*args)
        losses, aux = out if has_aux else (out, None)
        return _separate(losses), aux

    return jax.linearize(split, *primals, has_aux=True)


def _transpose(
    tangents: Callable[..., Any], i: int, loss: jax.Array, primals: tuple, single: bool
) -> Any:
    """Gradient of one loss.

    A pullback of all losses would be given zeros for the others, and compute with them
    in every branch that this loss does not reach.
    """
    pullback = jax.linear_transpose(lambda *args: tangents(*args)[i], *primals)
    return _pull(pullback, _varying_as(loss, jnp.ones_like(loss)), single)


def _stack(losses: Any) -> Values:
    separate = _separate(losses)
    return jnp.stack(separate) if isinstance(losses, (tuple, list)) else losses


def _separate(losses: Any) -> tuple[jax.Array, ...]:
    """The K losses one by one, once they are known to be scalars."""
    if isinstance(losses, (tuple, list)):
        shapes = [_shape(loss) for loss in losses]
        if not losses or any(shape != () for shape in shapes):
            raise ValueError(
                f"losses_fn must return K scalar losses, got shapes {shapes}. Reduce "
                "each over the batch; return (losses, aux) only with has_aux=True."
            )
        return tuple(jnp.asarray(loss) for loss in losses)
    if getattr(losses, "ndim", None) != 1:
        raise ValueError(
            "losses_fn must return a tuple of K scalars or an array of shape (k,), got "
            f"{type(losses).__name__} of shape {getattr(losses, 'shape', None)}."
        )
    return tuple(losses[i] for i in range(len(losses)))


def _shape(loss: Any) -> Any:
    """Shape of a number or an array; the type of anything else, auxiliary data say."""
    is_leaf = jax.tree_util.all_leaves([loss])
    return jnp.shape(loss) if is_leaf else type(loss).__name__


def _unit_rows(values: Values) -> list[jax.Array]:
    """The cotangents that pick out one loss each."""
    identity = jnp.eye(len(values), dtype=values.dtype)
    return [_varying_as(values, row) for row in identity]


def _varying_as(values: jax.Array, cotangent: jax.Array) -> jax.Array:
    """Marks a cotangent as the values are, as ``jax.shard_map`` demands of a pullback.

    A select takes on the marks of its predicate, and the compiler removes this one.
    """
    return jnp.where(jnp.isnan(values), cotangent, cotangent)


def _pull(pullback: Callable[..., Any], cotangent: jax.Array, single: bool) -> Any:
    grads = pullback(cotangent)
    return grads[0] if single else grads


def _mean(tree: Any, axis_name: str | None) -> Any:
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def _replica_local(tree: Any, axis_name: str | None) -> Any:
    """Marks replicated values as different on each replica.

    Inside ``jax.shard_map`` the transpose of using a replicated value is a sum over
    the replicas: without the mark, gradients would already be summed, and the average
    taken here would be too large by the number of replicas.
    """
    # An axis of jax.vmap is not one of a mesh, and knows no marks.
    if axis_name not in jax.sharding.get_abstract_mesh().axis_names:
        return tree

    def cast(x: Any) -> Any:
        try:
            return jax.lax.pcast(x, axis_name, to="varying")
        except ValueError:  # so marked already
            return x

    return jax.tree.map(cast, tree)
