"""Smallest changes to a direction that keep it from raising a loss."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdopt._linalg import dot, quadratic_form
from kdopt._nonnegative import nonnegative_qp, solve_face
from kdopt._simplex import enlarge, equilibrate
from kdopt._typing import Gram, Scalar, Weights


def dual_cone_point(gram: Gram, floor: Weights) -> Weights:
    r"""Projects a direction onto the dual cone of the gradients.

    .. math:: v = \arg\min_{v \ge u} v^\top G v

    :math:`J^\top v` is the nearest point to :math:`J^\top u` among the directions whose
    inner products with the gradients are all non-negative.

    Args:
        gram: ``[k, k]``.
        floor: Weights :math:`u \ge 0` of the direction, ``[k]``.

    Returns:
        Weights of the projection, ``[k]``; a zero gradient keeps its weight.
    """
    scaled, inverse = equilibrate(gram)
    active = inverse > 0
    # Lengths in units of the longest gradient, which cannot overflow.
    least = jnp.min(jnp.where(active, inverse, jnp.inf))
    relative = jnp.where(active, least / jnp.where(active, inverse, 1), 0)
    added = nonnegative_qp(scaled, -dot(scaled, floor * relative))
    return floor + jnp.where(active, added / jnp.where(active, relative, 1), 0)


def shortest_correction(gram: Gram, shortfall: Weights) -> Weights:
    r"""Finds the shortest vector that makes up a direction's shortfall.

    .. math:: \mu = \arg\min_{\mu \ge 0} \tfrac12 \mu^\top G \mu - s^\top \mu

    :math:`r = J^\top \mu` is then the shortest vector with
    :math:`\langle g_i, r \rangle \ge s_i`. It must exist: for a direction :math:`u`
    that may raise no loss, :math:`s = -J u`, it does, since :math:`-u` satisfies this.

    Args:
        gram: ``[k, k]``.
        shortfall: :math:`s`, ``[k]``.

    Returns:
        Non-negative multipliers ``[k]``; 0 for a zero gradient.
    """
    scaled, inverse = equilibrate(gram)
    return inverse * nonnegative_qp(scaled, inverse * shortfall)


def constrained_correction(gram: Gram, shortfall: Weights) -> tuple[Weights, jax.Array]:
    r"""Finds the same vector if there is one, and tells whether there is.

    Without a solution the multipliers are unbounded, so this solves

    .. math:: z = \arg\min_{z \ge 0} z^\top G z + (s^\top z - 1)^2, \qquad
        \mu = \frac{z}{1 - s^\top z}

    whose minimum is bounded, and zero exactly if a non-negative combination of the
    gradients vanishes while that of the shortfalls does not: by Farkas' lemma the
    condition for there being no solution.

    Args:
        gram: ``[k, k]``.
        shortfall: :math:`s`, ``[k]``; ignored for zero gradients.

    Returns:
        Non-negative multipliers ``[k]``, zero if there is no solution, and whether
        there is one, a scalar.
    """
    scaled, inverse = equilibrate(gram)
    wanted = inverse * shortfall
    size = jnp.max(jnp.abs(wanted))
    size = jnp.where(size > 0, size, 1)
    unit = wanted / size
    point = nonnegative_qp(scaled + unit[:, None] * unit[None, :], unit)
    square, total = quadratic_form(scaled, point), jnp.sum(point)
    rounding = 64 * len(gram) * jnp.finfo(gram.dtype).eps * total**2
    feasible = (total <= 0) | (square > rounding)
    left = jnp.where(feasible, 1 - dot(unit, point), 1)
    return jnp.where(feasible, point / left * size * inverse, 0), feasible


def regularize(
    gram: Gram, norm_eps: float | jax.Array, reg_eps: float | jax.Array
) -> Gram:
    """Adds a ridge to a Gram matrix, in units of its trace.

    A matrix whose trace is below ``norm_eps``, or zero, becomes the identity, with
    which no direction conflicts. Without a ridge the matrix is returned as it is, up to
    a power of two, so that short gradients keep their digits beside long ones.
    """
    gram, scale = enlarge(gram)
    trace = jnp.trace(gram)
    small = (trace == 0) | (trace < jnp.asarray(norm_eps, gram.dtype) * scale)
    identity = jnp.eye(len(gram), dtype=gram.dtype)
    ridge = jnp.asarray(reg_eps, gram.dtype) * trace * identity
    return jnp.where(small, identity, gram + ridge)


class _Path(NamedTuple):
    """State of the walk along the path of solutions."""

    point: Weights
    square: Scalar
    face: jax.Array
    done: jax.Array
    count: jax.Array


def conflict_averse_step(gram: Gram, radius: Scalar) -> Weights:
    r"""Finds the change within a ball that most helps the loss that falls least.

    .. math:: x : \quad J^\top x = \arg\max_{\lVert r \rVert \le c \lVert g_0 \rVert}
        \; \min_i \; \langle g_i, g_0 + r \rangle, \qquad g_0 = \tfrac1K \sum_i g_i

    For a wanted rate :math:`\mu` the shortest :math:`r` with
    :math:`\langle g_i, g_0 + r \rangle \ge \mu` is :math:`J^\top x` with
    :math:`x \ge 0`; the path :math:`x(\mu)` is piecewise linear. The walk follows it
    from bend to bend, each a linear system, until :math:`r` has the allowed length.

    Args:
        gram: ``[k, k]``.
        radius: :math:`c \ge 0`.

    Returns:
        Non-negative ``[k]``. Zero gradients are ignored. A ridge of a few rounding
        errors keeps it bounded where gradients are opposite: :math:`r` then stays
        within the ball, and helps a little less than it could. If the ball contains 0
        and ``g_0 + r`` is only rounding error, no loss can be helped: the result is
        then ``-1 / K``, so that the update is zero.
    """
    k = len(gram)
    scaled, inverse = equilibrate(gram)
    active = inverse > 0
    slopes = inverse / jnp.where(jnp.any(active), jnp.max(inverse), 1)
    least = jnp.min(jnp.where(active, inverse, jnp.inf))
    relative = jnp.where(active, least / jnp.where(active, inverse, 1), 0)
    mean = dot(scaled, relative) / k
    length = jnp.sqrt(jnp.maximum(dot(mean, relative) / k, 0))
    # In units of the length of g_0; a mean of zero leaves nothing to do.
    inverse_length = jnp.where(length > 0, 1 / jnp.where(length > 0, length, 1), 0)
    rates, shares = mean * inverse_length, relative / k * inverse_length
    point = _follow(scaled, rates, slopes, active, jnp.asarray(radius, gram.dtype))
    total = point + shares
    rounding = 4 * k * jnp.finfo(gram.dtype).eps * jnp.sum(total) ** 2
    stationary = (radius >= 1) & (quadratic_form(scaled, total) <= rounding)
    step = point * length * jnp.where(active, 1 / jnp.where(active, relative, 1), 0)
    return jnp.where(stationary, jnp.full(k, -1 / k, gram.dtype), step)


def _follow(
    gram: Gram, rates: Weights, slopes: Weights, active: jax.Array, radius: Scalar
) -> Weights:
    """Walks from ``x = 0`` to ``x G x = radius ** 2``.

    Squares count as at least the rounding error of their terms; otherwise opposite
    gradients would lead out of the ball.
    """
    k = len(rates)
    eps = 4 * k * jnp.finfo(rates.dtype).eps

    def body(path: _Path) -> _Path:
        x, face = path.point, path.face
        # In units of the steepest slope of the face: in units of the steepest of all
        # its square may underflow. Its rate is the wanted one.
        pivot = jnp.argmax(jnp.where(face, slopes, 0))
        steep = slopes / jnp.where(face[pivot], slopes[pivot], 1)
        direction = solve_face(gram, steep, face)
        lift = dot(gram, direction)
        # Where does the length reach the radius, a quadratic in the step?
        a = jnp.maximum(dot(direction, lift), eps * dot(direction, direction))
        b = jnp.maximum(dot(x, lift), eps * dot(x, jnp.abs(direction)))
        c = jnp.maximum(radius**2 - path.square, 0)
        root = jnp.sqrt(b**2 + a * c)
        end = jnp.where(c > 0, c / jnp.where(c > 0, b + root, 1), 0)

        # Where does another constraint become tight, or a multiplier vanish?
        reached = rates + dot(gram, x)
        slack = jnp.maximum(reached - reached[pivot] * steep, 0)
        closing = steep - lift
        joins = active & ~face & (closing > 2 * eps * steep)
        join = jnp.where(joins, slack / jnp.where(joins, closing, 1), jnp.inf)
        leaves = face & (direction < 0)
        leave = jnp.where(leaves, x / jnp.where(leaves, -direction, 1), jnp.inf)
        step = jnp.minimum(end, jnp.minimum(jnp.min(join), jnp.min(leave)))
        done = ~(end > step)
        # Of several that are tight to rounding, the one that falls most slowly.
        tight = joins & (join <= step)
        slow = jnp.where(tight, reached / jnp.where(tight, slopes, 1), jnp.inf)
        joined = (jnp.arange(k) == jnp.argmin(slow)) & tight
        return _Path(
            point=jnp.maximum(x + step * direction, 0),
            square=path.square + step * (2 * b + step * a),
            face=(face | joined) & ~(leave <= step),
            done=done,
            count=path.count + 1,
        )

    def unfinished(path: _Path) -> jax.Array:
        return ~path.done & (path.count < 4 * k + 8)

    levels = jnp.where(active, rates / jnp.where(active, slopes, 1), jnp.inf)
    first = jnp.argmin(levels)
    start = _Path(
        point=jnp.zeros_like(rates),
        square=jnp.zeros((), rates.dtype),
        face=active & (jnp.arange(k) == first),
        done=~jnp.any(active),
        count=jnp.zeros((), jnp.int32),
    )
    return jax.lax.while_loop(unfinished, body, start).point
