"""PCD: the task first, and a share of its own progress for every other loss."""

from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp

from kdopt._checks import PerOther, check_choice, check_range, per_other
from kdopt._linalg import quadratic_form
from kdopt._running import RunningMean, move_mean, start_mean
from kdopt._transform import check_num_losses, from_gram
from kdopt._typing import Balancer, Gram, Weights
from kdopt.balancers._constrained import (
    Conflict,
    ConstrainedStep,
    ConstraintCounts,
    constrained_step,
    no_counts,
)


class PcdMemory(NamedTuple):
    """State that :func:`pcd` carries between steps.

    Attributes:
        squares: Running mean of the squared norms, ``[k]``.
        counts: Steps on which constraints conflicted.
    """

    squares: RunningMean
    counts: ConstraintCounts


def pcd_weights(
    gram: Gram,
    squares: Weights | None = None,
    *,
    tau: PerOther = 0.02,
    eps: float | jax.Array = 1e-8,
    relative_eps: bool = True,
    on_conflict: Conflict = "allow",
) -> Weights:
    r"""Returns weights nearest to the task's that give every other loss its share.

    With gradients :math:`\tilde g_i = g_i / \sqrt{v_i (1 + \varepsilon)}` of about unit
    length:

    .. math::
        \tilde d = \arg\min_d \tfrac12 \lVert d - \tilde g_0 \rVert^2
        \quad \text{s.t.} \quad
        \langle \tilde g_j, d \rangle \ge \tau_j \lVert \tilde g_j \rVert^2
        \;\; (j \ge 1), \qquad
        d = \frac{\lVert g_0 \rVert}{\lVert \tilde d \rVert} \, \tilde d

    For two losses of cosine c, with :math:`v_i = \lVert g_i \rVert^2`, it is
    :math:`g_0` while :math:`c \ge \tau`; else the weight of the other loss is
    :math:`(\tau - c) \lVert g_0 \rVert / \lVert g_1 \rVert` times that of the task.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``, the task first.
        squares: Estimates :math:`v` of the squared norms, ``[k]``; by default those of
            this step.
        tau: :math:`\tau_j` in [0, 1], a number or ``[k - 1]``.
        eps: :math:`\varepsilon`.
        relative_eps: Whether :math:`\varepsilon` is in units of :math:`v_i`; False adds
            it unscaled, so that gradients shorter than 1e-4 count less.
        on_conflict: What to do where meeting the bounds raises the task loss; see
            :func:`kdopt.constrained_weights`.

    Returns:
        Non-negative weights, ``[k]``; :math:`(1, 0, \dots, 0)` if no direction meets
        all bounds; zero where the task gradient or the step is zero.

    Raises:
        ValueError: If ``on_conflict`` is unknown, or there are not K - 1 values of tau.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print(kdopt.pcd_weights(gram).round(4))
        [1.8481 1.0954]

    References:
        Priority-Constrained Descent, `arXiv:2606.29521
        <https://arxiv.org/abs/2606.29521>`_, TMLR 2026, as in TorchJD 0.18

    Notes:
        The step has the length of the task gradient, however much the bounds changed
        it. **The task loss rises**, by a full step, where
        :math:`c < (\tau - \sqrt{\tau^2 + 4}) / 2`: -0.99 for :math:`\tau = 0.02`, -0.62
        for 1. ``on_conflict`` says what to do then.
    """
    check_choice("on_conflict", on_conflict, get_args(Conflict))
    return _solve(gram, squares, tau, eps, relative_eps, on_conflict).weights


def _solve(
    gram: Gram,
    squares: Weights | None,
    tau: PerOther,
    eps: float | jax.Array,
    relative_eps: bool,
    on_conflict: Conflict,
) -> ConstrainedStep:
    k, own = len(gram), jnp.diagonal(gram)
    share = per_other(tau, k, gram.dtype, "tau")
    estimate = own if squares is None else squares.astype(gram.dtype)
    epsilon = jnp.asarray(eps, gram.dtype)
    raised = estimate + epsilon * (estimate if relative_eps else 1)
    active = own > 0
    inverse = jnp.where(active, 1 / jnp.sqrt(jnp.where(active, raised, 1)), 0)
    unit = gram * inverse[:, None] * inverse[None, :]
    step = constrained_step(unit, share * jnp.diagonal(unit)[1:], on_conflict)
    square = quadratic_form(unit, step.weights)
    spread = jnp.sum(jnp.abs(step.weights) * jnp.sqrt(jnp.diagonal(unit)))
    some = active[0] & (square > 10 * jnp.finfo(gram.dtype).eps * spread**2)
    length = jnp.sqrt(jnp.where(some, square, 1))
    # One factor after the other: their product may overflow for very different norms.
    scaled = step.weights * (jnp.sqrt(own[0]) * inverse) / length
    alone = jnp.zeros(k, gram.dtype).at[0].set(1)
    weights = jnp.where(step.feasible, scaled, alone)
    return step._replace(
        weights=jnp.where(some | (active[0] & ~step.feasible), weights, 0)
    )


def pcd(
    *,
    num_losses: int = 2,
    tau: PerOther = 0.02,
    decay: float | jax.Array = 0.999,
    eps: float | jax.Array = 1e-8,
    relative_eps: bool = True,
    on_conflict: Conflict = "allow",
    axis_name: str | None = None,
) -> Balancer:
    r"""Puts the task first and grants the others a share of their progress (PCD).

    The bounds are on cosines rather than on decreases, so the scale of the losses does
    not matter. The squared norms are running means, :math:`v_i \leftarrow \beta v_i +
    (1 - \beta) \lVert g_i \rVert^2`, corrected for their start at zero.

    Args:
        num_losses: K, at least 2.
        tau: How much every other loss must get (see :func:`pcd_weights`), from 0 (it
            does not rise) to 1 (the progress along its own gradient).
        decay: :math:`\beta` in [0, 1).
        eps: See :func:`pcd_weights`.
        relative_eps: See :func:`pcd_weights`.
        on_conflict: See :func:`pcd_weights`.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`pcd_weights` for the equation. The update is as long as
        the task gradient: keep the learning rate of the task loss alone.
        ``state.inner.counts`` counts the steps without a solution and those on which
        meeting the bounds would have raised the task loss.

    Raises:
        ValueError: If ``num_losses`` is below 2, a number is out of its range,
            ``on_conflict`` unknown, or there are not K - 1 values of ``tau``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.pcd()
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> update, state = tx.update(grads, tx.init(jnp.zeros(3)))
        >>> print(update.round(4), state.inner.counts.task_rises)
        [-0.82    2.9434  2.9434] 0

    Notes:
        TorchJD adds 1e-8 to the squared norms, as with ``relative_eps=False``. Here a
        zero gradient leaves its running mean as it is; in TorchJD it moves it towards
        zero. The mean lags behind a gradient that shrinks, and the weight of that loss
        grows.
    """
    k = check_num_losses(num_losses, minimum=2)
    check_range("tau", tau, 0.0, 1.0)
    check_range("decay", decay, 0.0, 1.0, open_maximum=True)
    check_range("eps", eps, 0.0)
    check_choice("on_conflict", on_conflict, get_args(Conflict))
    per_other(tau, k, jnp.zeros(()).dtype, "tau")

    def weights_fn(gram: Gram, _: None, memory: PcdMemory) -> tuple[Weights, PcdMemory]:
        own = jnp.diagonal(gram)
        squares = move_mean(memory.squares, own, decay, own > 0)
        step = _solve(gram, squares.value, tau, eps, relative_eps, on_conflict)
        counts = memory.counts.add(step)
        return step.weights, PcdMemory(squares, counts)

    return from_gram(
        weights_fn,
        k,
        initial_state=PcdMemory(start_mean(k), no_counts()),
        axis_name=axis_name,
    )
