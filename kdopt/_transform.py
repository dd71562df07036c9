"""The contract of a balancer: checks of its inputs, and a factory."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._gram import combine, gram
from kdopt._present import clear_grads, clear_values, present_mask
from kdopt._typing import Balancer, Gram, PerLossGrads, PresentLike, Values, Weights

HOW_TO_GET_GRADS = (
    "Get one tree per loss from kdopt.value_and_grads, and put the balancer first in "
    "its optax.chain: what follows it sees one tree."
)

GramWeightsFn: TypeAlias = Callable[[Gram, Any, Any], tuple[Weights, Any]]
"""``(gram, values, state) -> (weights, state)``."""


class WeightsState(NamedTuple):
    """State of a balancer that combines the gradients with weights.

    Attributes:
        loss_weights: Weights of the last step, ``[k]``; equal before the first, and 0
            for a loss that was absent.
        gram: Gram matrix of the last step, ``[k, k]``; it may hold NaN.
        notfinite_count: Number of steps, int32, whose Gram matrix, values or weights
            were not finite. Such a step reuses the weights and the inner state.
        inner: State of the method itself; ``()`` if none.
    """

    loss_weights: Weights
    gram: Gram
    notfinite_count: jax.Array
    inner: Any


def per_loss_tuple(
    updates: Any, params: Any, num_losses: int, present: PresentLike = None
) -> PerLossGrads:
    """Converts K gradient trees to a tuple, whatever form they arrive in.

    Args:
        updates: A tuple or list of K trees, or the mapping ``{0: tree, 1: tree, ...}``
            that ``flax.nnx.Optimizer.update`` makes of a tuple.
        params: The parameters, or None if the caller has none.
        num_losses: K.
        present: Which losses are present; the gradients of others are cleared.

    Returns:
        The tuple of K trees.

    Raises:
        ValueError: If it is anything else; the message names the likely cause.
    """
    if params is not None and jax.tree.structure(updates) == jax.tree.structure(params):
        raise ValueError(
            "The gradients have the structure of params themselves, so this is one "
            f"tree and not {num_losses} of them (if params is a tuple, its parts are "
            f"not losses). {HOW_TO_GET_GRADS}"
        )
    if isinstance(updates, Mapping) and set(updates) == set(range(len(updates))):
        updates = [updates[i] for i in range(len(updates))]
    if not isinstance(updates, (tuple, list)) or hasattr(updates, "_fields"):
        raise ValueError(
            f"Expected a tuple of {num_losses} gradient trees, one per loss, got "
            f"{type(updates).__name__}. {HOW_TO_GET_GRADS}"
        )
    grads = tuple(updates)
    if len(grads) != num_losses:
        raise ValueError(
            f"Expected {num_losses} gradient trees, one per loss, got {len(grads)}. "
            f"For {len(grads)} losses build the balancer with "
            f"num_losses={len(grads)}, if it takes that many; one without the argument "
            "takes two."
        )
    like = grads[0] if params is None else params
    for i, tree in enumerate(grads):
        if jax.tree.structure(tree) != jax.tree.structure(like):
            raise ValueError(
                f"Gradient tree {i} has the structure {jax.tree.structure(tree)}, "
                f"expected {jax.tree.structure(like)}. {HOW_TO_GET_GRADS}"
            )
        shapes = jax.tree.map(jnp.shape, tree), jax.tree.map(jnp.shape, like)
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"Gradient tree {i} has leaves of shapes {shapes[0]}, expected "
                f"{shapes[1]}."
            )
    return clear_grads(grads, present_mask(present, num_losses))


def values_array(
    values: Any, num_losses: int, dtype: jnp.dtype, present: PresentLike = None
) -> Values:
    """Converts the K loss values to one array.

    Args:
        values: An array ``[k]`` or a sequence of K scalars.
        num_losses: K.
        dtype: Dtype of the result.
        present: Which losses are present; the values of others are cleared.

    Returns:
        The values, ``[k]``, without gradients.

    Raises:
        ValueError: If they are missing or there are not K of them.
    """
    if values is None:
        raise ValueError(
            "This method needs the loss values of the step: pass them by name, "
            "tx.update(grads, state, params, values=values), or "
            "optimizer.update(model, grads, values=values) with flax.nnx."
        )
    if isinstance(values, (tuple, list)):
        values = jnp.stack([jnp.asarray(v, dtype) for v in values])
    values = jnp.asarray(values, dtype)
    if values.shape != (num_losses,):
        raise ValueError(
            f"Expected {num_losses} loss values, got an array of shape {values.shape}."
        )
    values = clear_values(values, present_mask(present, num_losses))
    return jax.lax.stop_gradient(values)


def check_num_losses(num_losses: Any, *, minimum: int = 1) -> int:
    """Checks K in the factory, before any gradient is seen."""
    # A Python or NumPy int, but no bool.
    whole = isinstance(num_losses, (int, np.integer)) and num_losses is not True
    if not whole or num_losses < minimum:
        raise ValueError(
            f"num_losses must be an int of at least {minimum}, got {num_losses!r}. "
            "Under optax.inject_hyperparams pass static_args=('num_losses',): it sets "
            "shapes."
        )
    return int(num_losses)


def check_state(weights: Any, num_losses: int) -> None:
    """Checks by its weights, or another ``[k]`` array, that a state is for K losses."""
    if jnp.shape(weights) != (num_losses,):
        raise ValueError(
            f"The state is for {jnp.size(weights)} losses and the transform for "
            f"{num_losses}: call init of this transform."
        )


def hold_unless(ok: jax.Array, new: Any, old: Any) -> Any:
    """Keeps the old state where a step is not ``ok``."""
    return jax.tree.map(lambda n, o: jnp.where(ok, n.astype(o.dtype), o), new, old)


def count_unless(ok: jax.Array, count: jax.Array) -> jax.Array:
    """Adds one to the count of the steps that were not ``ok``, int32."""
    return count + (~ok).astype(jnp.int32)


def start_state(initial: Any, dtype: jnp.dtype) -> Any:
    """Copies a pytree of numbers and arrays; floats take the given dtype.

    A state owns its buffers: a step that donates it must not delete the user's arrays,
    nor those that the next ``init`` needs.
    """

    def own(x: Any) -> jax.Array:
        floating = jnp.issubdtype(jnp.result_type(x), jnp.floating)
        return jnp.array(x, dtype if floating else None, copy=True)

    return jax.tree.map(own, initial)


def hold_elements(new: jax.Array, old: jax.Array) -> jax.Array:
    """Casts the new array to the old dtype; where not finite, keeps the old."""
    cast = new.astype(old.dtype)
    return jnp.where(jnp.isfinite(cast), cast, old)


def from_gram(
    weights_fn: GramWeightsFn,
    num_losses: int,
    *,
    needs_values: bool = False,
    initial_state: Any = (),
    axis_name: str | None = None,
) -> Balancer:
    """Builds a balancer from ``(gram, values, state) -> (weights, state)``.

    Every balancer of the library that works on the Gram matrix is built this way. The
    values are None unless ``needs_values``; the options are those of
    :func:`from_weights`.
    """
    k = check_num_losses(num_losses)

    def init_fn(params: optax.Params) -> WeightsState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        start = initial_state(params) if callable(initial_state) else initial_state
        return WeightsState(
            loss_weights=jnp.full(k, 1 / k, dtype),
            gram=jnp.zeros((k, k), dtype),
            notfinite_count=jnp.zeros((), jnp.int32),
            inner=start_state(start, dtype),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        values: Any = None,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, WeightsState]:
        del extra_args
        check_state(state.loss_weights, k)
        grads = per_loss_tuple(updates, params, k, present)
        dtype = state.gram.dtype
        matrix = jax.lax.stop_gradient(gram(grads, axis_name=axis_name)).astype(dtype)
        finite = jnp.all(jnp.isfinite(matrix))
        losses = values_array(values, k, dtype, present) if needs_values else None
        if losses is not None:
            finite &= jnp.all(jnp.isfinite(losses))
        weights, inner = weights_fn(matrix, losses, state.inner)
        finite &= jnp.all(jnp.isfinite(weights))
        weights = clear_values(weights, present_mask(present, k))
        new = hold_unless(finite, (weights, inner), (state.loss_weights, state.inner))
        count = count_unless(finite, state.notfinite_count)
        return combine(grads, new[0]), WeightsState(new[0], matrix, count, new[1])

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def gram_only(weights_fn: Callable[..., Weights], **options: Any) -> GramWeightsFn:
    """Turns ``gram -> weights`` into ``(gram, values, state) -> (weights, state)``."""
    return lambda gram, _, state: (weights_fn(gram, **options), state)


def from_weights(
    weights_fn: Callable[..., Any],
    *,
    num_losses: int = 2,
    needs_values: bool = False,
    initial_state: Any = None,
    axis_name: str | None = None,
) -> Balancer:
    r"""Builds a balancer from a pure function of the Gram matrix to weights.

    .. math:: w = f(G, L), \qquad u = \sum_i w_i \, g_i

    Args:
        weights_fn: ``weights_fn(gram) -> weights``; with ``needs_values`` it is called
            as ``weights_fn(gram, values)``, and with ``initial_state`` it takes the
            state as its last argument and returns ``(weights, state)``.
        num_losses: K.
        needs_values: Whether ``update`` must be given ``values``.
        initial_state: Pytree of numbers or arrays that the method carries from step to
            step, or a function from params to it. Floats take the dtype of the Gram
            matrix.
        axis_name: Mesh axis over which the gradients are *sharded*, inside
            ``jax.shard_map``; see :func:`kdopt.gram`.

    Returns:
        The transform. Its state is a :class:`WeightsState`.

    Raises:
        ValueError: If ``num_losses`` is not a positive int.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> def inverse_norm(gram):
        ...     return 1 / jnp.sqrt(jnp.diagonal(gram))
        >>> balancer = kdopt.from_weights(inverse_norm)
        >>> grads = (jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0]))
        >>> update, _ = balancer.update(grads, balancer.init(jnp.zeros(2)))
        >>> print(update)
        [0.6 1.8]
    """
    stateful = initial_state is not None

    def weights_of(gram: Gram, values: Any, state: Any) -> tuple[Weights, Any]:
        arguments = (gram, values) if needs_values else (gram,)
        if stateful:
            return weights_fn(*arguments, state)
        return weights_fn(*arguments), state

    return from_gram(
        weights_of,
        num_losses,
        needs_values=needs_values,
        initial_state=initial_state if stateful else (),
        axis_name=axis_name,
    )
