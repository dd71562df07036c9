"""Krum: the gradient with the most others near it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdopt._dtypes import accumulator_dtype, at_least_float32
from kdopt._gram import combine, gram
from kdopt._present import clear_values, present_mask
from kdopt._simplex import nonzero, normalize
from kdopt._transform import (
    WeightsState,
    check_num_losses,
    count_unless,
    hold_unless,
    per_loss_tuple,
)
from kdopt._typing import Balancer, Gram, PerLossGrads, PresentLike, Weights


def krum_weights(gram: Gram, *, num_byzantine: int, num_selected: int = 1) -> Weights:
    r"""Returns the weights of the mean of the most central gradients.

    .. math:: s_i = \sum_{j \in N_i} \lVert g_i - g_j \rVert^2

    with :math:`N_i` the :math:`K - f - 2` nearest others; the :math:`m` gradients with
    the smallest :math:`s_i` get the weight :math:`1 / m`, the others none.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        num_byzantine: :math:`f`, how many gradients may be arbitrary.
        num_selected: :math:`m`; 1 is Krum, more is Multi-Krum.

    Returns:
        Non-negative weights of sum one, ``[k]``; ties go to the first. Zero gradients
        are left out, and K is the number of the others. Distances are differences of
        entries, accurate only above 1e-2 of the lengths. :func:`kdopt.krum` takes
        differences of the gradients instead.

    Raises:
        ValueError: If K is below ``num_byzantine + 3`` or ``num_selected``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> grads = jnp.array([[1.0], [1.1], [1.3], [9.0]])
        >>> print(kdopt.krum_weights(grads @ grads.T, num_byzantine=1))
        [1. 0. 0. 0.]

    References:
        Blanchard et al., `Machine Learning with Adversaries: Byzantine Tolerant
        Gradient Descent <https://arxiv.org/abs/1703.02757>`_, NeurIPS 2017, section 4
    """
    _check(len(gram), num_byzantine, num_selected)
    distances = _distances(gram)
    return _choose(distances, nonzero(gram), num_byzantine, num_selected)


def _distances(gram: Gram) -> Gram:
    """Computes squared distances, in units of the longest vector."""
    scaled, _ = normalize(gram)
    squares = jnp.diagonal(scaled)
    return jnp.maximum(squares[:, None] + squares[None, :] - 2 * scaled, 0)


def _choose(
    distances: Gram, active: jax.Array, num_byzantine: int, num_selected: int
) -> Weights:
    """Returns the weights of the gradients with the least sums of nearest distances."""
    k = len(distances)
    others = ~jnp.eye(k, dtype=bool) & active[None, :]
    ordered = jnp.sort(jnp.where(others, distances, jnp.inf), axis=1)
    neighbours = jnp.maximum(jnp.sum(active) - num_byzantine - 2, 1)
    near = (jnp.arange(k) < neighbours)[None, :] & jnp.isfinite(ordered)
    scores = jnp.sum(jnp.where(near, ordered, 0), axis=1)
    _, chosen = jax.lax.top_k(-jnp.where(active, scores, jnp.inf), num_selected)
    weights = jnp.where(active, jnp.zeros(k, distances.dtype).at[chosen].set(1), 0)
    return weights / jnp.sum(weights)


def krum(
    *,
    num_losses: int = 3,
    num_byzantine: int = 0,
    num_selected: int = 1,
    axis_name: str | None = None,
) -> Balancer:
    """Balances by choosing the most central gradients (Krum, Multi-Krum).

    Up to ``num_byzantine`` gradients may be arbitrary without leading the update
    astray: meant for many teachers of unknown quality rather than a task and a teacher.

    Args:
        num_losses: K, at least ``num_byzantine + 3``.
        num_byzantine: How many gradients may be arbitrary.
        num_selected: How many gradients to average; 1 is Krum.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`krum_weights` for the equation. Weights sum to one. A
        zero gradient is left out. It makes two passes over the gradients before they
        are combined: the second takes differences from a central gradient, so that
        distances are accurate down to 1e-6 of the lengths.

    Raises:
        ValueError: If K is below ``num_byzantine + 3`` or ``num_selected``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.krum(num_losses=4, num_byzantine=1, num_selected=2)
        >>> grads = tuple(jnp.array([x]) for x in (1.0, 1.5, 1.2, 9.0))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(1)))
        >>> print(update)
        [1.1]

    Notes:
        Distances are squared, as in the paper; TorchJD adds them unsquared.
    """
    k = check_num_losses(num_losses, minimum=3)
    _check(k, num_byzantine, num_selected)

    def init_fn(params: optax.Params) -> WeightsState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        return WeightsState(
            loss_weights=jnp.full(k, 1 / k, dtype),
            gram=jnp.zeros((k, k), dtype),
            notfinite_count=jnp.zeros((), jnp.int32),
            inner=(),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, WeightsState]:
        del extra_args
        grads = per_loss_tuple(updates, params, k, present)

        def inner_products(trees: PerLossGrads) -> Gram:
            matrix = jax.lax.stop_gradient(gram(trees, axis_name=axis_name))
            return matrix.astype(state.gram.dtype)

        matrix = inner_products(grads)
        active = nonzero(matrix)
        far = jnp.where(active[None, :], _distances(matrix), 0)
        middle = jnp.argmin(jnp.where(active, jnp.sum(far, axis=1), jnp.inf))
        distances = _distances(inner_products(_differences(grads, middle)))
        weights = _choose(distances, active, num_byzantine, num_selected)
        weights = clear_values(weights, present_mask(present, k))
        finite = jnp.all(jnp.isfinite(matrix))
        weights = hold_unless(finite, weights, state.loss_weights)
        count = count_unless(finite, state.notfinite_count)
        return combine(grads, weights), WeightsState(weights, matrix, count, ())

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _differences(grads: PerLossGrads, middle: jax.Array) -> PerLossGrads:
    """Subtracts one of the gradients from all."""

    def less(i: int, *parts: jax.Array) -> jax.Array:
        wide = [at_least_float32(part) for part in parts]
        return wide[i] - jax.lax.select_n(middle, *wide)

    return tuple(
        jax.tree.map(lambda *parts, i=i: less(i, *parts), *grads)
        for i in range(len(grads))
    )


def _check(k: int, num_byzantine: int, num_selected: int) -> None:
    if num_byzantine < 0 or k < num_byzantine + 3:
        raise ValueError(
            f"Krum needs at least num_byzantine + 3 = {num_byzantine + 3} losses, and "
            f"num_byzantine not negative, got {k} losses."
        )
    if not 1 <= num_selected <= k:
        raise ValueError(
            f"num_selected must lie in [1, {k}], the number of losses, got "
            f"{num_selected}."
        )
