"""Averaging of the gradients of each loss over several batches before balancing."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype, wide_zeros
from kdopt._present import clear_values, present_mask
from kdopt._transform import check_num_losses, check_state, per_loss_tuple, values_array
from kdopt._typing import Balancer, PerLossGrads, PresentLike, Values
from kdopt.wrappers._inner import update_if


class AccumulateState(NamedTuple):
    """State of :func:`accumulate`.

    Attributes:
        mini_step: Number of batches since the last full step, int32; 0 right after.
        full_steps: Number of full steps, int32.
        num_examples: How many examples of each loss are in the means, ``[k]``.
        grads: Running mean of the gradients of each loss, at least float32.
        values: Running mean of the loss values, ``[k]``.
        inner: State of the wrapped transform.
    """

    mini_step: jax.Array
    full_steps: jax.Array
    num_examples: jax.Array
    grads: PerLossGrads
    values: Values
    inner: Any


def accumulate(
    tx: optax.GradientTransformation,
    every_k: int | Callable[[jax.Array], Any],
    *,
    num_losses: int = 2,
) -> Balancer:
    r"""Averages the gradients of each loss over k batches before they are balanced.

    .. math:: \bar g_i = \frac{\sum_t n_i^{(t)} g_i^{(t)}}{\sum_t n_i^{(t)}}, \qquad
        \bar L_i = \frac{\sum_t n_i^{(t)} L_i^{(t)}}{\sum_t n_i^{(t)}}, \qquad
        t = 1, \dots, k

    A Gram matrix is quadratic in the gradients: that of the mean over a large batch is
    not the mean of those of its parts. So this must come before the balancer, where
    ``optax.MultiSteps`` cannot be. On the other steps the update is zero and ``tx``
    does not run.

    Args:
        tx: A balancer, or better the whole chain that begins with one: momenta and
            schedules after it then count only full steps.
        every_k: k, an int or a function from the number of full steps to it.
        num_losses: K.

    Returns:
        The transform. ``state.mini_step == 0`` after a full step. Extra arguments are
        passed on as they were on the last of the k steps, ``values`` as a mean.
        ``update(..., num_examples=n)`` says how many examples (or tokens) a batch
        averages over, a number or one per loss, ``[k]``; by default all batches count
        equally. A loss without examples in all k batches is passed on as absent.

    Raises:
        ValueError: If ``every_k`` is not a positive int.

    Examples:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import kdopt
        >>> tx = kdopt.accumulate(optax.chain(kdopt.min_norm(), optax.sgd(1.0)), 2)
        >>> params = jnp.zeros(2)
        >>> state = tx.init(params)
        >>> for row in (jnp.array([3.0, 0.0]), jnp.array([1.0, 0.0])):
        ...     updates, state = tx.update((row, row), state, params)
        ...     print(updates)
        [0. 0.]
        [-2. -0.]

    Notes:
        A batch that is not finite spoils the mean of all k. Put
        :func:`kdopt.skip_nonfinite` *around* this to leave out only that batch.
    """
    k = check_num_losses(num_losses)
    if not callable(every_k) and every_k < 1:
        raise ValueError(f"every_k must be at least 1, got {every_k}.")
    inner = optax.with_extra_args_support(tx)

    def init_fn(params: optax.Params) -> AccumulateState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        return AccumulateState(
            mini_step=jnp.zeros((), jnp.int32),
            full_steps=jnp.zeros((), jnp.int32),
            num_examples=jnp.zeros(k, dtype),
            grads=tuple(wide_zeros(params) for _ in range(k)),
            values=jnp.zeros(k, dtype),
            inner=inner.init(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        values: Any = None,
        present: PresentLike = None,
        num_examples: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AccumulateState]:
        check_state(state.num_examples, k)
        dtype = state.values.dtype
        counted = num_examples is not None or present is not None
        given = jnp.asarray(1 if num_examples is None else num_examples, dtype)
        examples = clear_values(jnp.broadcast_to(given, (k,)), present_mask(present, k))
        mask = examples > 0 if counted else None
        grads = per_loss_tuple(updates, params, k, mask)
        total = state.num_examples + examples
        # A loss without examples so far keeps its mean of zero.
        shares = examples / jnp.where(total > 0, total, 1)

        def mean(share: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
            return old + share.astype(old.dtype) * (new.astype(old.dtype) - old)

        means = tuple(
            jax.tree.map(functools.partial(mean, shares[i]), state.grads[i], grads[i])
            for i in range(k)
        )
        mean_values = state.values
        if values is not None:
            array = values_array(values, k, dtype, mask)
            mean_values = mean(shares, state.values, array)
            extra_args["values"] = mean_values
        if counted:
            extra_args["present"] = total > 0
        count = state.mini_step + 1
        period = every_k(state.full_steps) if callable(every_k) else every_k
        full = count >= period
        ready = jax.tree.map(lambda m, g: m.astype(g.dtype), means, grads)
        update, inner_state = update_if(
            full,
            lambda: inner.update(ready, state.inner, params, **extra_args),
            state.inner,
        )
        kept = jax.tree.map(
            lambda m: jnp.where(full, jnp.zeros_like(m), m), (means, mean_values, total)
        )
        return update, AccumulateState(
            mini_step=jnp.where(full, 0, count),
            full_steps=state.full_steps + full.astype(jnp.int32),
            num_examples=kept[2],
            grads=kept[0],
            values=kept[1],
            inner=inner_state,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
