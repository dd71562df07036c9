"""Adam with separate moments for each loss: MultiAdam and MTAdam."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdopt._checks import check_range
from kdopt._dtypes import accumulator_dtype, wide_zeros
from kdopt._transform import check_num_losses, check_state, per_loss_tuple
from kdopt._typing import Balancer, PerLossGrads, PresentLike
from kdopt.balancers._elements import hold_together


class MultiAdamState(NamedTuple):
    """State of :func:`scale_by_multi_adam` and :func:`scale_by_mt_adam`.

    Attributes:
        count: Number of steps, int32.
        mu: First moments, one tree per loss.
        nu: Second moments, one tree per loss.
        norms: Running means of the norms of each leaf, ``[leaves, k]``; ``()`` for
            :func:`scale_by_multi_adam`.
    """

    count: jax.Array
    mu: PerLossGrads
    nu: PerLossGrads
    norms: Any


def scale_by_multi_adam(
    b1: float | jax.Array = 0.9,
    b2: float | jax.Array = 0.999,
    eps: float | jax.Array = 1e-8,
    *,
    num_losses: int = 2,
) -> Balancer:
    r"""Rescales as Adam does, for each loss separately, and takes the mean (MultiAdam).

    .. math::
        m_i \leftarrow \beta_1 m_i + (1 - \beta_1) g_i, \qquad
        v_i \leftarrow \beta_2 v_i + (1 - \beta_2) g_i^2, \qquad
        u = \frac1K \sum_i \frac{m_i / (1 - \beta_1^t)}
                 {\sqrt{v_i / (1 - \beta_2^t)} + \varepsilon}

    Scaling a loss changes nothing: every loss moves every parameter by steps of order
    one. :func:`kdopt.scale_by_dot_adam` shares the second moment of the sum, in which a
    loss with long gradients drowns out the others.

    Args:
        b1: :math:`\beta_1`.
        b2: :math:`\beta_2`.
        eps: :math:`\varepsilon`.
        num_losses: K.

    Returns:
        A balancer with 2 K buffers; follow it by the learning rate. An element keeps
        all its moments if a new one would not be finite, and its update is NaN.

    Raises:
        ValueError: If a number is out of its range.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.scale_by_multi_adam()
        >>> grads = (jnp.array([1.0, 1.0]), jnp.array([1000.0, 0.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(2)))
        >>> print("{:.4f} {:.4f}".format(*update))
        1.0000 0.5000

    References:
        Yao et al., `MultiAdam: Parameter-wise Scale-invariant Optimizer for Multiscale
        Training of Physics-informed Neural Networks
        <https://arxiv.org/abs/2306.02816>`_, ICML 2023
    """
    return _per_loss_adam(b1, b2, eps, None, num_losses)


def scale_by_mt_adam(
    b1: float | jax.Array = 0.9,
    b2: float | jax.Array = 0.999,
    b3: float | jax.Array = 0.9,
    eps: float | jax.Array = 1e-8,
    *,
    num_losses: int = 2,
) -> Balancer:
    r"""Rescales gradients to the length of the first, with moments for each (MTAdam).

    For every leaf separately, with bias-corrected running means :math:`n_i` of the
    norms of its gradients, of decay :math:`\beta_3`:

    .. math::
        \bar g_i = \frac{n_0}{n_i} g_i, \qquad
        u = \frac{\sum_i m_i / (1 - \beta_1^t)}
                 {\max_j \sqrt{v_j / (1 - \beta_2^t)} + \varepsilon}

    where :math:`m_i` and :math:`v_i` are the moments of :math:`\bar g_i`. The common
    denominator, that of the loss that varies most, damps the others where one is
    uncertain.

    Args:
        b1: :math:`\beta_1`.
        b2: :math:`\beta_2`.
        b3: :math:`\beta_3`.
        eps: :math:`\varepsilon`.
        num_losses: K.

    Returns:
        A balancer with 2 K buffers; follow it by the learning rate. Elements of the
        update are of order K at most. A leaf that the first loss does not reach takes
        the gradients of the others as they are. Elements that are not finite are
        handled as in :func:`scale_by_multi_adam`.

    Raises:
        ValueError: If a number is out of its range.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.scale_by_mt_adam()
        >>> grads = (jnp.array([3.0, 4.0]), jnp.array([0.0, 1000.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(2)))
        >>> print("{:.4f} {:.4f}".format(*update))
        1.0000 1.8000

    References:
        Malkiel and Wolf, `MTAdam: Automatic Balancing of Multiple Training Loss Terms
        <https://arxiv.org/abs/2006.14683>`_, 2020
    """
    check_range("b3", b3, 0.0, 1.0, open_maximum=True)
    return _per_loss_adam(b1, b2, eps, b3, num_losses)


def multi_adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: float | jax.Array = 0.9,
    b2: float | jax.Array = 0.999,
    eps: float | jax.Array = 1e-8,
    *,
    num_losses: int = 2,
) -> Balancer:
    """Builds Adam with separate moments for each loss, averaging steps (MultiAdam).

    See :func:`kdopt.scale_by_multi_adam` for the equation. For one loss it is
    ``optax.adam``.

    Args:
        learning_rate: A number or a schedule.
        b1: Decay of the first moments.
        b2: Decay of the second moments.
        eps: Added to the denominators.
        num_losses: K.

    Returns:
        An optimiser of K losses: a balancer with its learning rate.

    Raises:
        ValueError: If a number is out of its range.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.multi_adam(0.1)
        >>> grads, params = (jnp.ones(1), 1000 * jnp.ones(1)), jnp.zeros(1)
        >>> updates, _ = tx.update(grads, tx.init(params), params)
        >>> print(f"{updates[0]:.4f}")
        -0.1000
    """
    core = scale_by_multi_adam(b1, b2, eps, num_losses=num_losses)
    return optax.chain(core, optax.scale_by_learning_rate(learning_rate))


def mt_adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: float | jax.Array = 0.9,
    b2: float | jax.Array = 0.999,
    b3: float | jax.Array = 0.9,
    eps: float | jax.Array = 1e-8,
    *,
    num_losses: int = 2,
) -> Balancer:
    """Builds Adam on gradients that are all as long as that of the first loss (MTAdam).

    See :func:`kdopt.scale_by_mt_adam` for the equation. For one loss it is
    ``optax.adam``.

    Args:
        learning_rate: A number or a schedule.
        b1: Decay of the first moments.
        b2: Decay of the second moments.
        b3: Decay of the norms.
        eps: Added to the denominator.
        num_losses: K.

    Returns:
        An optimiser of K losses: a balancer with its learning rate.

    Raises:
        ValueError: If a number is out of its range.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.mt_adam(0.1)
        >>> grads, params = (jnp.ones(1), 1000 * jnp.ones(1)), jnp.zeros(1)
        >>> updates, _ = tx.update(grads, tx.init(params), params)
        >>> print(f"{updates[0]:.4f}")
        -0.2000
    """
    core = scale_by_mt_adam(b1, b2, b3, eps, num_losses=num_losses)
    return optax.chain(core, optax.scale_by_learning_rate(learning_rate))


def _per_loss_adam(
    b1: float | jax.Array,
    b2: float | jax.Array,
    eps: float | jax.Array,
    b3: float | jax.Array | None,
    num_losses: int,
) -> Balancer:
    k = check_num_losses(num_losses)
    check_range("b1", b1, 0.0, 1.0, open_maximum=True)
    check_range("b2", b2, 0.0, 1.0, open_maximum=True)
    check_range("eps", eps, 0.0, open_minimum=True)
    matched, decay = b3 is not None, 0.0 if b3 is None else b3

    def init_fn(params: optax.Params) -> MultiAdamState:
        def zeros() -> PerLossGrads:
            return tuple(wide_zeros(params) for _ in range(k))

        leaves = jax.tree.leaves(params)
        dtype = accumulator_dtype(*map(jnp.asarray, leaves))
        norms = jnp.zeros((len(leaves), k), dtype) if matched else ()
        return MultiAdamState(jnp.zeros((), jnp.int32), zeros(), zeros(), norms)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MultiAdamState]:
        del extra_args
        check_state(jnp.zeros(len(state.mu)), k)
        grads = per_loss_tuple(updates, params, k, present)
        count = jnp.asarray(optax.safe_increment(state.count))
        columns = [
            zip(*map(jax.tree.leaves, x), strict=True)
            for x in (grads, state.mu, state.nu)
        ]
        combined, mus, nus, norms = [], [], [], []
        for n, (gs, mu, nu) in enumerate(zip(*columns, strict=True)):
            wide = [g.astype(m.dtype) for g, m in zip(gs, mu, strict=True)]
            if matched:
                moved, factors = _match(wide, state.norms[n], decay)
                wide = [g * c for g, c in zip(wide, factors, strict=True)]
                norms.append(moved)
            update, first, second = _step(wide, mu, nu, (b1, b2, eps), count, matched)
            held, update = hold_together(
                [*first, *second], [*mu, *nu], update.astype(gs[0].dtype)
            )
            combined.append(update)
            mus.append(held[:k])
            nus.append(held[k:])
        structure = jax.tree.structure(grads[0])

        def trees(columns: list) -> PerLossGrads:
            rows = zip(*columns, strict=True) if columns else [()] * k
            return tuple(jax.tree.unflatten(structure, row) for row in rows)

        return jax.tree.unflatten(structure, combined), MultiAdamState(
            count, trees(mus), trees(nus), jnp.stack(norms) if norms else state.norms
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _match(
    gs: Sequence[jax.Array], norms: jax.Array, decay: float | jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    """Returns the new mean norms of a leaf, and factors that match the first."""
    dtype = norms.dtype
    # In units of the largest element: squares neither overflow nor vanish.
    tops = [jnp.max(jnp.abs(g), initial=0) for g in gs]
    units = [jnp.where(top > 0, top, 1) for top in tops]
    own = jnp.stack(
        [
            (jnp.sqrt(jnp.sum((g / unit) ** 2)) * unit).astype(dtype)
            for g, unit in zip(gs, units, strict=True)
        ]
    )
    beta = jnp.asarray(decay, dtype)
    # Started at the first nonzero norm; later zeros and faults do not count.
    counts = (own > 0) & jnp.isfinite(own)
    fresh = jnp.where(norms > 0, beta * norms + (1 - beta) * own, own)
    moved = jnp.where(counts, fresh, norms)
    known = (moved > 0) & (moved[0] > 0)
    factors = jnp.where(known, moved[0] / jnp.where(known, moved, 1), 1)
    return moved, [c.astype(g.dtype) for g, c in zip(gs, factors, strict=True)]


def _step(
    gs: Sequence[jax.Array],
    mu: Sequence[jax.Array],
    nu: Sequence[jax.Array],
    settings: tuple[Any, Any, Any],
    count: jax.Array,
    shared: bool,
) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
    """Returns the update of a leaf, and its new moments."""
    dtype = mu[0].dtype
    one, two, eps = (jnp.asarray(x, dtype) for x in settings)
    t = count.astype(dtype)
    first = [one * m + (1 - one) * g for m, g in zip(mu, gs, strict=True)]
    second = [two * v + (1 - two) * g**2 for v, g in zip(nu, gs, strict=True)]
    hats = [m / (1 - one**t) for m in first]
    roots = [jnp.sqrt(v / (1 - two**t)) for v in second]
    if shared:
        total = functools.reduce(jnp.add, hats)
        return total / (functools.reduce(jnp.maximum, roots) + eps), first, second
    parts = [m / (root + eps) for m, root in zip(hats, roots, strict=True)]
    return functools.reduce(jnp.add, parts) / len(parts), first, second
