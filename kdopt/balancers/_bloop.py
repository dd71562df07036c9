"""Bloop: auxiliary gradients without their component along the task's running mean."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._checks import check_choice, check_range
from kdopt._dtypes import accumulator_dtype, at_least_float32, wide_zeros
from kdopt._gram import combine, gram
from kdopt._present import present_mask
from kdopt._transform import (
    check_num_losses,
    check_state,
    count_unless,
    hold_unless,
    per_loss_tuple,
)
from kdopt._typing import Balancer, PresentLike, Weights


class BloopState(NamedTuple):
    """State of :func:`bloop`.

    Attributes:
        count: Number of finite steps, int32.
        trace: Running mean of the task gradient, at least float32.
        coefficients: How much of the mean, in units of it, was removed from each
            auxiliary gradient, ``[k]``; 0 for the task.
        notfinite_count: Number of steps, int32, that left the mean unchanged because a
            gradient was not finite.
    """

    count: jax.Array
    trace: Any
    coefficients: Weights
    notfinite_count: jax.Array


def bloop(
    *,
    num_losses: int = 2,
    weight: float | jax.Array = 0.1,
    rate: float | jax.Array = 0.1,
    initial: str = "grad",
    eps: float | jax.Array = 1e-7,
    relative_eps: bool = True,
    max_ratio: float | jax.Array | None = None,
    axis_name: str | None = None,
) -> Balancer:
    r"""Trains auxiliary losses in the directions that the task leaves free (Bloop).

    .. math::
        m \leftarrow m + \rho (g_0 - m), \qquad
        u = g_0 + \lambda \sum_{j \ge 1} \Big(
            g_j - \frac{\langle m, g_j \rangle}
                {\lVert m \rVert^2 (1 + \varepsilon)} \, m
        \Big)

    On average over batches the task loss falls as it would alone, and the others as far
    as that allows. It keeps one buffer, whatever K is, and makes two passes over
    gradients and mean.

    Args:
        num_losses: K, at least 2; the task first.
        weight: :math:`\lambda`.
        rate: :math:`\rho` in (0, 1].
        initial: What the mean starts from: ``"grad"``, the first gradient, which then
            counts more than the later ones; or ``"zeros"``.
        eps: :math:`\varepsilon`.
        relative_eps: Whether :math:`\varepsilon` is in units of
            :math:`\lVert m \rVert^2`; False adds it unscaled.
        max_ratio: Upper bound of the coefficient of :math:`m`; None for no bound.
            ``1 / weight`` is the dynamic barrier of the authors' code.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer, with a :class:`kdopt.balancers.BloopState`. The weight of the task
        is 1: keep the learning rate of the task loss alone.

    Raises:
        ValueError: If ``num_losses`` is below 2, ``initial`` unknown or a number is out
            of its range.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.bloop(weight=0.5)
        >>> grads = (jnp.array([1.0, 0.0]), jnp.array([-1.0, 2.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(2)))
        >>> print(update.round(4))
        [1. 1.]

    References:
        ``apple/ml-bloop`` c4626c6, ``src/bloop/optim.py``, whose results it reproduces

    Notes:
        The authors' code is for two losses and adds 1e-7 to the squared norm,
        ``relative_eps=False``, which turns the projection off for short gradients. Its
        ``rescale`` is left out: it multiplies by :math:`1 + \lambda` where division was
        meant.
    """
    k = check_num_losses(num_losses, minimum=2)
    check_choice("initial", initial, ("grad", "zeros"))
    check_range("weight", weight, 0.0)
    check_range("rate", rate, 0.0, 1.0, open_minimum=True)
    check_range("eps", eps, 0.0)

    def init_fn(params: optax.Params) -> BloopState:
        return BloopState(
            count=jnp.zeros((), jnp.int32),
            trace=wide_zeros(params),
            coefficients=jnp.zeros(k, accumulator_dtype(*jax.tree.leaves(params))),
            notfinite_count=jnp.zeros((), jnp.int32),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, BloopState]:
        del extra_args
        check_state(state.coefficients, k)
        grads = per_loss_tuple(updates, params, k, present)
        dtype = state.coefficients.dtype
        rows = jax.tree.map(at_least_float32, grads)
        mask = present_mask(present, k)
        task = jnp.ones((), bool) if mask is None else mask[0]
        share = jnp.where((state.count == 0) & (initial == "grad"), 1, rate)
        share = jnp.where(task, share, 0)
        mean = jax.tree.map(
            lambda m, g: m + share.astype(m.dtype) * (g - m), state.trace, rows[0]
        )
        matrix = gram((*rows, mean), axis_name=axis_name).astype(dtype)
        matrix = jax.lax.stop_gradient(matrix)
        square, products = matrix[k, k], matrix[k, :k]
        epsilon = jnp.asarray(eps, dtype)
        whole = square + epsilon * (square if relative_eps else 1)
        some = square > 0
        ratios = jnp.where(some, products / jnp.where(some, whole, 1), 0)
        ratios = ratios.at[0].set(0)
        if max_ratio is not None:
            ratios = jnp.minimum(ratios, jnp.asarray(max_ratio, dtype))
        finite = jnp.all(jnp.isfinite(matrix)) & jnp.all(jnp.isfinite(ratios))
        ratios = jnp.where(finite, ratios, state.coefficients)
        shares = jnp.full(k, weight, dtype).at[0].set(1)
        weights = jnp.append(shares, -jnp.sum(shares * ratios))
        update = combine((*grads, mean), weights)
        count = jnp.asarray(optax.safe_increment(state.count))
        old = state.count, state.trace
        count, trace = hold_unless(finite & task, (count, mean), old)
        missed = count_unless(finite, state.notfinite_count)
        return update, BloopState(count, trace, ratios, missed)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
