"""M-ConFIG: conflict-free momenta, one of them refreshed per step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdopt._checks import (
    Preference,
    check_preference,
    check_range,
)
from kdopt._dtypes import accumulator_dtype, wide_zeros
from kdopt._gram import combine, gram
from kdopt._present import present_mask
from kdopt._transform import check_num_losses, count_unless, hold_unless
from kdopt._typing import Balancer, PerLossGrads, PresentLike, Weights
from kdopt.balancers._conflict_free import conflict_free_weights
from kdopt.balancers._elements import hold_together


class MomentumConflictFreeState(NamedTuple):
    """State of :func:`momentum_conflict_free`.

    Attributes:
        count: Number of finite steps, int32.
        loss_weights: Weights for the next backward pass, ``[k]``: one for the loss
            whose turn it is, zero for the others.
        traces: First moment of each loss, K trees shaped like the parameters.
        pseudo_trace: First moment of the update.
        second_moment: Second moment of the update, shaped like the parameters.
        notfinite_count: Number of skipped steps, int32, whose gradient was not finite.
    """

    count: jax.Array
    loss_weights: Weights
    traces: PerLossGrads
    pseudo_trace: Any
    second_moment: Any
    notfinite_count: jax.Array


def momentum_conflict_free(
    *,
    num_losses: int = 2,
    b1: float | jax.Array = 0.9,
    b2: float | jax.Array = 0.999,
    eps: float | jax.Array = 1e-8,
    preference: Preference = None,
    axis_name: str | None = None,
) -> Balancer:
    r"""Balances momenta of the losses, one of which is refreshed per step (M-ConFIG).

    The losses take turns: step t computes only the gradient of loss
    :math:`i = t \bmod K`, with one backward pass.

    .. math::
        m_i &\leftarrow \beta_1 m_i + (1 - \beta_1) g_i, \qquad
        \hat m_j = \frac{m_j}{1 - \beta_1^{t_j}} \\
        u &= \mathrm{ConFIG}(\hat m_1, \dots, \hat m_K), \qquad
        m \leftarrow (1 - \beta_1^t) \, u \\
        v &\leftarrow \beta_2 v + (1 - \beta_2)
            \Big( \frac{m - \beta_1 m_{old}}{1 - \beta_1} \Big)^2, \qquad
        \text{update} = \frac{u}{\sqrt{v / (1 - \beta_2^t)} + \varepsilon}

    This is Adam on the conflict-free gradient: follow it by the learning rate, not by
    Adam. ``update`` takes one gradient tree, that of the loss weighted with
    ``kdopt.loss_weights(opt_state)``.

    It makes three passes over K + 3 copies of the parameters (refresh; Gram matrix;
    combination and second moment).

    Args:
        num_losses: K.
        b1: :math:`\beta_1` in [0, 1).
        b2: :math:`\beta_2` in [0, 1).
        eps: :math:`\varepsilon`.
        preference: See :func:`kdopt.conflict_free`.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A transform from one tree to one tree. Elements of the update are of order one.
        The first K - 1 updates are zero, until each loss has had its turn. A gradient
        that is not finite changes only ``notfinite_count``; the update is then not
        masked. If the loss whose turn it is is not ``present``, the update is zero and
        the turn stays.

    Raises:
        ValueError: If a number is out of its range.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import kdopt
        >>> def losses_fn(x):
        ...     return jnp.sum((x - 1) ** 2), jnp.sum((x + 1) ** 2)
        >>> tx = optax.chain(kdopt.momentum_conflict_free(), optax.sgd(0.05))
        >>> params = jnp.array([2.0, -3.0])
        >>> state = tx.init(params)
        >>> grad_fn = kdopt.value_and_weighted_grad(losses_fn)
        >>> @jax.jit
        ... def step(params, state):
        ...     weights = kdopt.loss_weights(state)
        ...     values, grads = grad_fn(params, weights=weights)
        ...     updates, state = tx.update(grads, state, params)
        ...     return optax.apply_updates(params, updates), state
        >>> for _ in range(200):
        ...     params, state = step(params, state)
        >>> print(bool(jnp.all(jnp.abs(params) <= 1)))
        True

    References:
        Liu et al., `ConFIG: Towards Conflict-free Training of Physics Informed Neural
        Networks <https://arxiv.org/abs/2408.11104>`_, ICLR 2025, M-ConFIG

    Notes:
        Step counts begin when every momentum has been refreshed once, as in the
        authors' code (tum-pbs/ConFIG, ``PseudoMomentumOperator``).
    """
    k = check_num_losses(num_losses)
    check_range("b1", b1, 0.0, 1.0, open_maximum=True)
    check_range("b2", b2, 0.0, 1.0, open_maximum=True)
    check_range("eps", eps, 0.0, open_minimum=True)
    check_preference(preference, k)

    losses = np.arange(k, dtype=np.int32)

    def turn(count: jax.Array) -> jax.Array:
        return losses == count % k

    def init_fn(params: optax.Params) -> MomentumConflictFreeState:
        count = jnp.zeros((), jnp.int32)
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        return MomentumConflictFreeState(
            count=count,
            loss_weights=turn(count).astype(dtype),
            traces=tuple(wide_zeros(params) for _ in range(k)),
            pseudo_trace=wide_zeros(params),
            second_moment=wide_zeros(params),
            notfinite_count=jnp.zeros((), jnp.int32),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MomentumConflictFreeState]:
        del params, extra_args
        _check_one_tree(updates, state.pseudo_trace, k)
        dtype = state.loss_weights.dtype
        one, two = jnp.asarray(b1, dtype), jnp.asarray(b2, dtype)
        now, mask = turn(state.count), present_mask(present, k)
        here = jnp.array(True) if mask is None else jnp.any(now & mask)
        count = jnp.asarray(optax.safe_increment(state.count))

        def refresh(i: int, trace: jax.Array, grad: jax.Array) -> jax.Array:
            keep = jnp.where(now[i], one, 1).astype(trace.dtype)
            # A gradient that is not used must not spread its NaN through 0 * NaN.
            fresh = jnp.where(now[i] & here, grad.astype(trace.dtype), 0)
            return keep * trace + (1 - keep) * fresh

        traces = tuple(
            jax.tree.map(lambda m, g, i=i: refresh(i, m, g), state.traces[i], updates)
            for i in range(k)
        )
        turns = (count + k - 1 - losses) // k
        unbias = 1 / (1 - one ** jnp.maximum(turns, 1).astype(dtype))
        matrix = jax.lax.stop_gradient(gram(traces, axis_name=axis_name)).astype(dtype)
        corrected = matrix * unbias[:, None] * unbias[None, :]
        weights = conflict_free_weights(corrected, preference=preference) * unbias
        finite = jnp.all(jnp.isfinite(matrix)) & jnp.all(jnp.isfinite(weights))

        direction = combine(traces, weights)
        began = count >= k
        steps = jnp.maximum(count - k + 1, 1).astype(dtype)
        first, second = 1 - one**steps, 1 - two**steps

        def advance(u: jax.Array, old: jax.Array, square: jax.Array) -> tuple:
            wide = u.dtype
            new = first.astype(wide) * u
            pseudo = (new - one.astype(wide) * old) / (1 - one.astype(wide))
            decay = two.astype(wide)
            moved = decay * square + (1 - decay) * pseudo**2
            scale = jnp.sqrt(moved / second.astype(wide)) + jnp.asarray(eps, wide)
            (new, moved), step = hold_together((new, moved), (old, square), u / scale)
            return jnp.where(began & here, step, 0), new, moved

        triples = jax.tree.map(
            advance, direction, state.pseudo_trace, state.second_moment
        )
        structure = jax.tree.structure(direction)
        update, pseudo, square = jax.tree.transpose(
            structure, jax.tree.structure((0, 0, 0)), triples
        )
        update = jax.tree.map(lambda u, g: u.astype(g.dtype), update, updates)
        old = (state.count, state.traces, state.pseudo_trace, state.second_moment)
        pseudo, square = hold_unless(began, (pseudo, square), old[2:])
        count, traces, pseudo, square = hold_unless(
            finite & here, (count, traces, pseudo, square), old
        )
        missed = count_unless(finite, state.notfinite_count)
        return update, MomentumConflictFreeState(
            count, turn(count).astype(dtype), traces, pseudo, square, missed
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _check_one_tree(updates: Any, like: Any, k: int) -> None:
    if jax.tree.structure(updates) != jax.tree.structure(like):
        raise ValueError(
            "momentum_conflict_free takes the gradient of one loss, shaped like "
            f"params, not {k} of them: get it from kdopt.value_and_weighted_grad with "
            "weights=kdopt.loss_weights(opt_state)."
        )
