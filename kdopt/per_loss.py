"""Functions that differentiate several losses, all with one forward pass."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp

from kdopt._differentiate import (
    check_differentiable,
    close_over,
    keep_present,
    present_share,
    split_aux,
    split_losses,
)
from kdopt._loss_weights import check_weighs_grads, loss_weights
from kdopt._masks import fill, mask_tree, select
from kdopt._present import clear_grads, clear_values, present_mask
from kdopt._typing import (
    Aux,
    Balancer,
    GradFn,
    Losses,
    LossesFn,
    PerLossGrads,
    PresentLike,
    SharedGradFn,
    Values,
    WeightedGradFn,
    Weights,
)

__all__ = [
    "LinearizedLosses",
    "linearize",
    "value_and_grads",
    "value_and_shared_grad",
    "value_and_weighted_grad",
]


def __dir__() -> list[str]:
    return __all__


@overload
def value_and_grads(
    losses_fn: Callable[..., tuple[Losses, Aux]],
    *,
    argnums: int | Sequence[int] = 0,
    has_aux: Literal[True],
    axis_name: str | None = None,
) -> GradFn[tuple[tuple[Values, Aux], PerLossGrads]]: ...
@overload
def value_and_grads(
    losses_fn: Callable[..., Losses],
    *,
    argnums: int | Sequence[int] = 0,
    has_aux: Literal[False] = False,
    axis_name: str | None = None,
) -> GradFn[tuple[Values, PerLossGrads]]: ...
def value_and_grads(
    losses_fn: LossesFn,
    *,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    axis_name: str | None = None,
) -> GradFn[Any]:
    r"""Differentiates each of K losses: one forward pass, K backward passes.

    .. math:: (L_1, \dots, L_K), \quad (\nabla L_1, \dots, \nabla L_K)

    The forward pass runs once, so that BatchNorm statistics and dropout keys are used
    once. The pullbacks run in sequence; :func:`value_and_shared_grad` avoids their
    cost.

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
        ``((values, aux), grads)``: values ``[k]``, and a tuple of K gradients. It also
        takes ``present=``, K bools: the value and the gradient of a loss that is absent
        from the batch are 0, whatever the function returned for it. With ``axis_name``
        they may differ by replica; averages are then taken over those that have the
        loss.

    Raises:
        ValueError: If the losses are not scalars.
        TypeError: If an argument to differentiate holds an integer, a random key or a
            ``flax.nnx.Module`` (for which see ``kdopt.nnx``).

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> def losses_fn(x):
        ...     return jnp.sum(x**2), jnp.sum((x - 1) ** 2)
        >>> values, grads = kdopt.value_and_grads(losses_fn)(jnp.array([2.0, 3.0]))
        >>> print(values, *grads)
        [13.  5.] [4. 6.] [2. 4.]
    """

    def wrapped(*args: Any, present: PresentLike = None, **kwargs: Any) -> Any:
        fn, primals, single = close_over(losses_fn, argnums, args, kwargs)
        primals = _replica_local(primals, axis_name)
        fn = with_losses(fn, has_aux, present, axis_name)
        losses, tangents, aux = jax.linearize(fn, *primals, has_aux=True)
        grads: PerLossGrads = tuple(
            _transpose(tangents, i, loss, primals, single)
            for i, loss in enumerate(losses)
        )
        grads = clear_grads(grads, present_mask(present, len(losses)))
        values, grads = _mean((jnp.stack(losses), grads), axis_name)
        return ((values, aux) if has_aux else values), grads

    return wrapped


@overload
def value_and_weighted_grad(
    losses_fn: Callable[..., tuple[Losses, Aux]],
    *,
    argnums: int | Sequence[int] = 0,
    has_aux: Literal[True],
    axis_name: str | None = None,
) -> WeightedGradFn[tuple[tuple[Values, Aux], Any]]: ...
@overload
def value_and_weighted_grad(
    losses_fn: Callable[..., Losses],
    *,
    argnums: int | Sequence[int] = 0,
    has_aux: Literal[False] = False,
    axis_name: str | None = None,
) -> WeightedGradFn[tuple[Values, Any]]: ...
def value_and_weighted_grad(
    losses_fn: LossesFn,
    *,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    axis_name: str | None = None,
) -> WeightedGradFn[Any]:
    r"""Differentiates a weighted sum of K losses: one backward pass.

    .. math:: (L_1, \dots, L_K), \quad \sum_i w_i \nabla L_i

    For weights that are known before the backward pass: fixed ones, and those of a
    scalarizer, which live in the optimiser state.

    Args:
        losses_fn: See :func:`value_and_grads`.
        argnums: Argument(s) to differentiate with respect to.
        has_aux: Whether the function returns auxiliary data.
        axis_name: Mesh axis over which values and gradient are averaged.

    Returns:
        A function of the same arguments and the keyword ``weights``, which is an array
        ``[k]`` or a function from values ``[k]`` to it. It returns ``(values, grads)``
        or ``((values, aux), grads)``, with one gradient tree. ``present=`` is that of
        :func:`value_and_grads`, but with one backward pass an absent loss must have a
        finite derivative: divide by ``max(count, 1)``, not by 0.

    Raises:
        ValueError: If the losses are not scalars, or there are not K weights.
        TypeError: See :func:`value_and_grads`.

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
        *args: Any,
        weights: Weights | Callable[[Values], Weights],
        present: PresentLike = None,
        **kwargs: Any,
    ) -> Any:
        fn, primals, single = close_over(losses_fn, argnums, args, kwargs)
        primals = _replica_local(primals, axis_name)
        fn = with_losses(fn, has_aux, present, axis_name)
        values, pullback, aux = stacked_vjp(fn, primals)
        # The weights are the same on every replica: they come from averaged values.
        mean_values = _mean(values, axis_name)
        array = weights(mean_values) if callable(weights) else weights
        cotangent = _weights_cotangent(array, values)
        grads = _mean(_pull(pullback, cotangent, single), axis_name)
        return ((mean_values, aux) if has_aux else mean_values), grads

    return wrapped


@overload
def value_and_shared_grad(
    encode_fn: Callable[..., tuple[Any, Aux]],
    losses_fn: LossesFn,
    balancer: Balancer,
    *,
    has_aux: Literal[True],
    weigh_heads: Any = True,
    axis_name: str | None = None,
) -> SharedGradFn[tuple[tuple[Values, Aux], Any, Any]]: ...
@overload
def value_and_shared_grad(
    encode_fn: Callable[..., Any],
    losses_fn: LossesFn,
    balancer: Balancer,
    *,
    has_aux: Literal[False] = False,
    weigh_heads: Any = True,
    axis_name: str | None = None,
) -> SharedGradFn[tuple[Values, Any, Any]]: ...
def value_and_shared_grad(
    encode_fn: Callable[..., Any],
    losses_fn: LossesFn,
    balancer: Balancer,
    *,
    has_aux: bool = False,
    weigh_heads: Any = True,
    axis_name: str | None = None,
) -> SharedGradFn[Any]:
    r"""Balances at a shared representation: one backward pass through the network.

    .. math::
        z = f(\theta), \qquad
        u_z = \mathrm{balance}(\nabla_z L_1, \dots, \nabla_z L_K), \qquad
        u = \Big(\frac{\partial z}{\partial \theta}\Big)^{\!\top} u_z

    The K pullbacks run only through what comes after ``z`` (for logit distillation a
    few operations on ``[batch, classes]``), so a step costs as much as a plain one. The
    Gram matrix is that of :math:`\nabla_z L_i`, not of :math:`\nabla_\theta L_i`: an
    upper bound in the literature (MGDA-UB), exact if the Jacobian of the network
    preserves angles.

    Args:
        encode_fn: ``encode_fn(params, *args, **kwargs)`` returns the representation
            ``z``, any pytree with a leading batch axis; with ``has_aux`` a pair
            ``(z, aux)``.
        losses_fn: ``losses_fn(params, z, *args, **kwargs)`` returns the K scalar
            losses. It may also use ``params`` after ``z``, as for a classifier or a
            feature regressor; see ``weigh_heads``.
        balancer: Any balancer that weights the gradients themselves and keeps nothing
            shaped like the parameters: not :func:`kdopt.dot`, not a chain. Inside
            ``jax.shard_map`` give it the same ``axis_name``: each replica holds its
            part of ``z``, so the Gram matrix is a sum over replicas.
        has_aux: Whether ``encode_fn`` returns auxiliary data.
        weigh_heads: Whether parameters that ``losses_fn`` reaches directly get the
            weighted sum of their gradients, as the network does; False gives them the
            plain sum, for heads that belong to one loss each. A mask as that of
            :func:`restrict` says so for each, as where layers of all losses come before
            the heads: see :func:`reachable`.
        axis_name: Mesh axis over which values and gradient are averaged.

    Returns:
        A function ``(params, *args, state=balancer_state, **kwargs)`` that returns
        ``(values, grads, state)`` or ``((values, aux), grads, state)``: values ``[k]``,
        one gradient tree for any Optax optimiser, and the new state of the balancer;
        the first is ``balancer.init(params)``. It also takes ``present=``, under the
        condition of :func:`value_and_weighted_grad`.

    Raises:
        ValueError: If the losses are not scalars, or the balancer or its state does not
            qualify.
        TypeError: See :func:`value_and_grads`.

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

    def encode(p: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        out = encode_fn(p, *args, **kwargs)
        return split_aux(out, "encode_fn") if has_aux else (out, None)

    def heads(p: Any, z: Any, _: Any, *args: Any, **kwargs: Any) -> tuple[Any, None]:
        return losses_fn(p, z, *args, **kwargs), None

    grad_fn = shared_grad(encode, heads, balancer, weigh_heads, axis_name)

    def wrapped(params: Any, *args: Any, **kwargs: Any) -> Any:
        values, grads, state, (aux, _) = grad_fn(params, *args, **kwargs)
        return ((values, aux) if has_aux else values), grads, state

    return wrapped


def shared_grad(
    encode_fn: Callable[..., Any],
    losses_fn: LossesFn,
    balancer: Balancer,
    weigh_heads: Any,
    axis_name: str | None,
) -> Callable[..., Any]:
    """Implements :func:`value_and_shared_grad`; both functions also return aux.

    The second is called with the auxiliary data of the first, ``losses_fn(params, z,
    aux, ...)``, and the result ends with the pair of both.
    """

    def wrapped(
        params: Any, *args: Any, state: Any, present: PresentLike = None, **kwargs: Any
    ) -> Any:
        check_differentiable(params)
        local = _replica_local(params, axis_name)
        shared, encoder_pullback, aux = jax.vjp(
            lambda p: encode_fn(p, *args, **kwargs), local, has_aux=True
        )
        check_differentiable(shared)
        heads = with_losses(
            lambda p, z: losses_fn(p, z, aux, *args, **kwargs), True, present, axis_name
        )
        values, head_pullback, head_aux = stacked_vjp(heads, (local, shared))
        found = balance_shared(
            balancer,
            state,
            shared,
            values,
            lambda row: head_pullback(row)[1],
            present,
            axis_name,
        )
        mean_values, weights, state = found.values, found.weights, found.state
        head_grads, cotangent = head_pullback(_varying_as(values, weights))
        if weigh_heads is not True:
            plain, _ = head_pullback(_varying_as(values, jnp.ones_like(weights)))
            flags = mask_tree(weigh_heads, local)
            head_grads = fill(select(head_grads, flags), flags, plain)
        (encoder_grads,) = encoder_pullback(cotangent)
        grads = _mean(jax.tree.map(jnp.add, encoder_grads, head_grads), axis_name)
        return mean_values, grads, state, (aux, head_aux)

    return wrapped


class LinearizedLosses(NamedTuple):
    """K losses at a point, and their derivative there, on demand.

    Attributes:
        values: The losses, ``[k]``.
        slopes: From a direction, a tree like the parameters, to the directional
            derivatives of all losses along it, ``[k]``: one forward-mode pass.
        gradient: From weights ``[k]`` to the gradient of the weighted sum: one backward
            pass.
        aux: The auxiliary data; None without ``has_aux``.
    """

    values: Values
    slopes: Callable[[Any], jax.Array]
    gradient: Callable[[Weights], Any]
    aux: Any


def linearize(
    losses_fn: LossesFn,
    *,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    axis_name: str | None = None,
) -> GradFn[LinearizedLosses]:
    r"""Linearizes K losses: one forward pass, then slopes and gradients on demand.

    .. math:: (L_1, \dots, L_K), \qquad v \mapsto J v, \qquad w \mapsto J^\top w

    With the gradient :math:`r` of a reference loss as direction, :math:`J r` holds the
    inner products :math:`\langle g_i, r \rangle` of all K losses with it, for one
    forward-mode pass, however many losses there are; the gradients themselves would
    need K backward passes. With :math:`r = J^\top w` it is :math:`G w`, the fall of
    each loss along the update.

    Args:
        losses_fn: See :func:`value_and_grads`.
        argnums: Argument(s) to differentiate with respect to.
        has_aux: Whether the function returns auxiliary data.
        axis_name: Mesh axis over which values, slopes and gradients are averaged; the
            direction must be the same on every replica.

    Returns:
        A function of the same arguments that returns a :class:`LinearizedLosses`. It
        takes ``present=`` under the condition of :func:`value_and_weighted_grad`; the
        slope of an absent loss is 0. The result holds functions: call them within the
        same ``jax.jit``.

    Raises:
        ValueError: If the losses are not scalars.
        TypeError: See :func:`value_and_grads`.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> def losses_fn(x):
        ...     return jnp.sum(x**2), jnp.sum((x - 1) ** 2)
        >>> at = kdopt.linearize(losses_fn)(jnp.array([2.0, 3.0]))
        >>> print(at.values, at.slopes(jnp.array([1.0, -1.0])))
        [13.  5.] [-2. -2.]
        >>> print(at.gradient(jnp.array([0.1, 0.9])))
        [2.2 4.2]
    """

    def wrapped(*args: Any, present: PresentLike = None, **kwargs: Any) -> Any:
        fn, primals, single = close_over(losses_fn, argnums, args, kwargs)
        primals = _replica_local(primals, axis_name)
        fn = _stacked(with_losses(fn, has_aux, present, axis_name))
        values, tangents, aux = jax.linearize(fn, *primals, has_aux=True)

        def slopes(direction: Any) -> jax.Array:
            given = (direction,) if single else tuple(direction)
            cast = jax.tree.map(
                lambda d, p: jnp.asarray(d, jnp.result_type(p)), given, primals
            )
            return _mean(tangents(*_replica_local(cast, axis_name)), axis_name)

        def gradient(weights: Weights) -> Any:
            pullback = jax.linear_transpose(tangents, *primals)
            cotangent = _weights_cotangent(weights, values)
            return _mean(_pull(pullback, cotangent, single), axis_name)

        return LinearizedLosses(_mean(values, axis_name), slopes, gradient, aux)

    return wrapped


class SharedWeights(NamedTuple):
    """Weights that a balancer found at a shared representation.

    Attributes:
        values: The losses, averaged over replicas.
        weights: Their weights.
        grads: Their gradients with respect to the representation.
        state: The new state of the balancer.
    """

    values: Values
    weights: Weights
    grads: PerLossGrads
    state: Any


def balance_shared(
    balancer: Balancer,
    state: Any,
    shared: Any,
    values: Values,
    pullback: Callable[[jax.Array], Any],
    present: PresentLike,
    axis_name: str | None,
) -> SharedWeights:
    """Balances K losses by their gradients with respect to a shared representation.

    Args:
        balancer: See :func:`value_and_shared_grad`.
        state: Its state.
        shared: The representation.
        values: The losses, ``[k]``.
        pullback: From a cotangent of the values to one of the representation.
        present: Which losses are present.
        axis_name: Mesh axis of the replicas.
    """
    _check_state(balancer, state, shared)
    mean_values = _mean(values, axis_name)
    mask = present_mask(present, len(values))
    # A loss is a mean over all replicas, of which this one holds a share.
    size = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    grads = tuple(pullback(row / size) for row in _unit_rows(values))
    grads = clear_grads(grads, mask)
    if mask is not None and axis_name is not None:
        mask = jax.lax.pmax(mask.astype(jnp.int32), axis_name)
    _, state = balancer.update(grads, state, shared, values=mean_values, present=mask)
    weights = clear_values(loss_weights(state).astype(values.dtype), mask)
    return SharedWeights(mean_values, weights, grads, state)


def _check_state(balancer: Balancer, state: Any, shared: Any) -> None:
    """Checks that a balancer's state holds weights and nothing shaped like params."""
    own = state.inner if hasattr(state, "metrics") else state  # that of monitor
    check_weighs_grads(own, "value_and_shared_grad")
    fresh = jax.eval_shape(balancer.init, shared)
    if _shapes(fresh) != _shapes(state):
        raise ValueError(
            f"The state {type(state).__name__} is not one that this balancer can use "
            "at a shared representation. It must be balancer.init(params) of the same "
            "balancer and number of losses, and hold nothing that is shaped like the "
            "parameters (as per_layer, partition, restrict, moco and excess_mtl do)."
        )


def _shapes(tree: Any) -> Any:
    return jax.tree.map(jnp.shape, tree)


def with_losses(
    fn: Callable[..., Any], has_aux: bool, present: PresentLike, axis_name: str | None
) -> Callable[..., tuple[tuple[jax.Array, ...], Any]]:
    """Wraps a function: checks its K losses, and replaces absent ones by 0."""

    def split(*args: Any) -> tuple[tuple[jax.Array, ...], Any]:
        losses, aux = split_losses(fn(*args), has_aux)
        mask = present_mask(present, len(losses))
        return keep_present(losses, mask, present_share(mask, axis_name)), aux

    return split


def stacked_vjp(fn: Callable[..., Any], primals: tuple) -> tuple:
    """Runs one forward pass; returns the losses as an array, their pullback and aux."""
    return jax.vjp(_stacked(fn), *primals, has_aux=True)


def _stacked(fn: Callable[..., Any]) -> Callable[..., tuple[Values, Any]]:
    """Wraps a function to return its losses as one array."""

    def stacked(*args: Any) -> tuple[Values, Any]:
        losses, aux = fn(*args)
        return jnp.stack(losses), aux

    return stacked


def _transpose(
    tangents: Callable[..., Any], i: int, loss: jax.Array, primals: tuple, single: bool
) -> Any:
    """Computes the gradient of one loss.

    A pullback of all losses would compute with zeros for the others in every branch
    that this loss does not reach.
    """
    pullback = jax.linear_transpose(lambda *args: tangents(*args)[i], *primals)
    return _pull(pullback, _varying_as(loss, jnp.ones_like(loss)), single)


def _unit_rows(values: Values) -> list[jax.Array]:
    """Returns the cotangents that pick out one loss each."""
    identity = jnp.eye(len(values), dtype=values.dtype)
    return [_varying_as(values, row) for row in identity]


def _weights_cotangent(weights: Any, values: Values) -> jax.Array:
    """Returns the cotangent whose pullback is the gradient of the weighted sum.

    Raises:
        ValueError: If there are not K weights.
    """
    cotangent = jax.lax.stop_gradient(jnp.asarray(weights, values.dtype))
    if cotangent.shape != values.shape:
        raise ValueError(
            f"Expected {len(values)} weights, one per loss, got an array of shape "
            f"{cotangent.shape}."
        )
    return _varying_as(values, cotangent)


def _varying_as(values: jax.Array, cotangent: jax.Array) -> jax.Array:
    """Marks a cotangent like the values, as ``jax.shard_map`` requires of a pullback.

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
    # An axis of jax.vmap is not one of a mesh, and has no marks.
    if axis_name not in jax.sharding.get_abstract_mesh().axis_names:
        return tree

    def cast(x: Any) -> Any:
        try:
            return jax.lax.pcast(x, axis_name, to="varying")
        except ValueError:  # already marked
            return x

    return jax.tree.map(cast, tree)
