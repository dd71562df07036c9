"""The three gradient calls for Flax NNX modules: ``import kdopt.nnx``; needs flax.

The functions of :mod:`kdopt` differentiate pytrees. These take a module instead, as
``flax.nnx.value_and_grad`` does: gradients are taken with respect to its parameters,
and what the one forward pass changes in it (BatchNorm statistics, counts of random
keys) is written back. Options are explained at the functions of the same name in
:mod:`kdopt`.
"""

from collections.abc import Callable
from typing import Any

from flax import nnx

from kdopt import per_loss as pure
from kdopt._differentiate import split_aux
from kdopt._typing import (
    Balancer,
    GradFn,
    PerLossGrads,
    SharedGradFn,
    WeightedGradFn,
)

__all__ = ["value_and_grads", "value_and_shared_grad", "value_and_weighted_grad"]


def __dir__() -> list[str]:
    return __all__


def value_and_grads(
    losses_fn: Callable[..., Any],
    *,
    wrt: Any = nnx.Param,
    has_aux: bool = False,
    axis_name: str | None = None,
) -> GradFn[tuple[Any, PerLossGrads]]:
    r"""Differentiates each of K losses of a module; see :func:`kdopt.value_and_grads`.

    Args:
        losses_fn: ``losses_fn(model, *args, **kwargs)`` returns the K scalar losses;
            with ``has_aux`` a pair ``(losses, aux)``. It may change the module's
            variables, other than those of ``wrt``.
        wrt: Variables to differentiate with respect to, an NNX filter.
        has_aux: Whether the function returns auxiliary data.
        axis_name: Mesh axis of data parallelism.

    Returns:
        A function of the same arguments that returns ``(values, grads)``, or
        ``((values, aux), grads)``; ``grads`` is a tuple of K states, as
        ``flax.nnx.Optimizer.update(model, grads, values=values)`` takes them.

    Raises:
        ValueError: If the losses are not scalars.

    Examples:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> from flax import nnx
        >>> import kdopt.nnx
        >>> model = nnx.BatchNorm(1, momentum=0.9, rngs=nnx.Rngs(0))
        >>> tx = optax.chain(kdopt.min_norm(), optax.sgd(0.1))
        >>> optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        >>> def losses_fn(model, x):
        ...     y = model(x)
        ...     return jnp.sum((y - 1) ** 2), jnp.sum((y + 3) ** 2)
        >>> grad_fn = kdopt.nnx.value_and_grads(losses_fn)
        >>> values, grads = grad_fn(model, jnp.array([[1.0], [3.0]]))
        >>> _ = optimizer.update(model, grads, values=values)
        >>> weights = kdopt.loss_weights(optimizer.opt_state)
        >>> print("{:.1f} {:.2f} {:.2f}".format(model.mean[0], *weights))
        0.2 0.75 0.25
    """

    def wrapped(model: Any, *args: Any, **kwargs: Any) -> Any:
        graphdef, params, rest = nnx.split(model, wrt, ...)
        fn = _on_state(losses_fn, graphdef, wrt, has_aux)
        grad_fn = pure.value_and_grads(fn, has_aux=True, axis_name=axis_name)
        (values, (aux, moved)), grads = grad_fn(params, rest, *args, **kwargs)
        nnx.update(model, moved)
        return ((values, aux) if has_aux else values), grads

    return wrapped


def value_and_weighted_grad(
    losses_fn: Callable[..., Any],
    *,
    wrt: Any = nnx.Param,
    has_aux: bool = False,
    axis_name: str | None = None,
) -> WeightedGradFn[tuple[Any, Any]]:
    r"""Differentiates a weighted sum of K losses of a module.

    See :func:`kdopt.value_and_weighted_grad`.

    Args:
        losses_fn: See :func:`value_and_grads`.
        wrt: Variables to differentiate with respect to, an NNX filter.
        has_aux: Whether the function returns auxiliary data.
        axis_name: Mesh axis over which values and gradient are averaged.

    Returns:
        A function of the same arguments and the keyword ``weights`` that returns
        ``(values, grads)`` or ``((values, aux), grads)``, with one state of gradients.

    Raises:
        ValueError: If the losses are not scalars, or there are not K weights.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> import kdopt.nnx
        >>> model = nnx.Linear(1, 1, use_bias=False, rngs=nnx.Rngs(0))
        >>> def losses_fn(model, x):
        ...     return jnp.sum(3 * model(x)), jnp.sum(model(x))
        >>> grad_fn = kdopt.nnx.value_and_weighted_grad(losses_fn)
        >>> _, grads = grad_fn(model, jnp.ones((1, 1)), weights=jnp.array([1.0, 2.0]))
        >>> print(grads["kernel"][...])
        [[5.]]
    """

    def wrapped(model: Any, *args: Any, **kwargs: Any) -> Any:
        graphdef, params, rest = nnx.split(model, wrt, ...)
        fn = _on_state(losses_fn, graphdef, wrt, has_aux)
        grad_fn = pure.value_and_weighted_grad(fn, has_aux=True, axis_name=axis_name)
        (values, (aux, moved)), grads = grad_fn(params, rest, *args, **kwargs)
        nnx.update(model, moved)
        return ((values, aux) if has_aux else values), grads

    return wrapped


def value_and_shared_grad(
    encode_fn: Callable[..., Any],
    losses_fn: Callable[..., Any],
    balancer: Balancer,
    *,
    wrt: Any = nnx.Param,
    has_aux: bool = False,
    weigh_heads: bool = True,
    axis_name: str | None = None,
) -> SharedGradFn[tuple[Any, Any, Any]]:
    r"""Balances K losses of a module at a representation that they share.

    See :func:`kdopt.value_and_shared_grad`.

    Args:
        encode_fn: ``encode_fn(model, *args, **kwargs)`` returns the representation
            ``z``; with ``has_aux`` a pair ``(z, aux)``.
        losses_fn: ``losses_fn(model, z, *args, **kwargs)`` returns the K scalar losses.
            It sees the variables of the module as ``encode_fn`` left them.
        balancer: A balancer that weights the gradients themselves.
        wrt: Variables to differentiate with respect to, an NNX filter.
        has_aux: Whether ``encode_fn`` returns auxiliary data.
        weigh_heads: Whether parameters that ``losses_fn`` reaches get the weighted sum.
        axis_name: Mesh axis over which values and gradient are averaged.

    Returns:
        A function ``(model, *args, state=balancer_state, **kwargs)`` that returns
        ``(values, grads, state)`` or ``((values, aux), grads, state)``. The first state
        is ``balancer.init(nnx.state(model, wrt))``.

    Raises:
        ValueError: If the losses are not scalars, or the balancer does not qualify.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> import kdopt.nnx
        >>> model = nnx.Linear(2, 2, use_bias=False, rngs=nnx.Rngs(0))
        >>> def losses_fn(model, z, x):
        ...     return jnp.sum((z - 1) ** 2), jnp.sum((z + 2) ** 2)
        >>> balancer = kdopt.min_norm()
        >>> grad_fn = kdopt.nnx.value_and_shared_grad(
        ...     lambda model, x: model(x), losses_fn, balancer
        ... )
        >>> state = balancer.init(nnx.state(model, nnx.Param))
        >>> values, grads, state = grad_fn(model, jnp.zeros((1, 2)), state=state)
        >>> print(values, "{:.3f} {:.3f}".format(*state.loss_weights))
        [2. 8.] 0.667 0.333
    """

    def wrapped(model: Any, *args: Any, state: Any, **kwargs: Any) -> Any:
        graphdef, params, rest = nnx.split(model, wrt, ...)

        def encode(params: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            run = _on_state(encode_fn, graphdef, wrt, has_aux)
            return run(params, rest, *args, **kwargs)

        def heads(params: Any, z: Any, encoded: Any, *args: Any, **kwargs: Any) -> Any:
            run = _on_state(losses_fn, graphdef, wrt, False)
            return run(params, encoded[1], z, *args, **kwargs)

        grad_fn = pure.shared_grad(encode, heads, balancer, weigh_heads, axis_name)
        values, grads, state, (encoded, (_, moved)) = grad_fn(
            params, *args, state=state, **kwargs
        )
        nnx.update(model, moved)
        return ((values, encoded[0]) if has_aux else values), grads, state

    return wrapped


def _on_state(
    fn: Callable[..., Any], graphdef: Any, wrt: Any, has_aux: bool
) -> Callable[..., Any]:
    """Turns a function of a module into one of its parameters and other variables.

    It returns ``(out, (aux, others))``, with the other variables as it left them.
    """

    def run(params: Any, rest: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        model = nnx.merge(graphdef, params, rest, copy=True)
        out = fn(model, *args, **kwargs)
        out, aux = split_aux(out) if has_aux else (out, None)
        return out, (aux, nnx.split(model, wrt, ...)[2])

    return run
