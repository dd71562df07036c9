"""Minimisation of a convex quadratic over the non-negative orthant."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdopt._linalg import dot, solve
from kdopt._typing import Gram, Scalar, Weights

FEW = 8
"""Up to this many coordinates an accelerator tries all faces, ``2^k`` small systems."""


class _Search(NamedTuple):
    """State of an active-set search."""

    point: Weights
    passive: jax.Array
    failed: jax.Array
    done: jax.Array
    count: jax.Array


def solve_face(hessian: Gram, linear: Weights, face: jax.Array) -> Weights:
    """Solves ``H x = b`` on the chosen indices; zero elsewhere.

    A ridge of a few rounding errors keeps the system regular; the diagonal is of
    order 1.
    """
    k = len(linear)
    on = face.astype(hessian.dtype)
    ridge = 4 * k * jnp.finfo(hessian.dtype).eps
    block = hessian * on[:, None] * on[None, :] + jnp.diag(1 - on + ridge * on)
    return solve(block, linear * on) * on


def nonnegative_qp(hessian: Gram, linear: Weights) -> Weights:
    r"""Minimises a convex quadratic over non-negative coordinates.

    .. math:: x = \arg\min_{x \ge 0} \tfrac12 x^\top H x - b^\top x

    Exact up to the rounding of one linear system.

    Args:
        hessian: Positive semi-definite with a diagonal of order 1, ``[k, k]``.
        linear: ``[k]``.

    Returns:
        ``[k]``. The condition ``H x >= b`` holds to a few rounding errors of the terms
        of each sum.
    """
    scale = jnp.max(jnp.abs(linear))
    scale = jnp.where(scale > 0, scale, 1)
    b = linear / scale
    if len(b) > FEW:
        return search_active_set(hessian, b) * scale
    x = jax.lax.platform_dependent(
        hessian, b, cpu=search_active_set, default=try_all_faces
    )
    return x * scale


def try_all_faces(hessian: Gram, b: Weights) -> Weights:
    """Minimises over each face and returns a minimum that is global.

    It has no conditional loop, in which an accelerator would wait for its host, and no
    library call: just a few kernels, also under ``vmap``.
    """
    k, dtype = len(b), hessian.dtype
    eps = jnp.finfo(dtype).eps
    # The largest face first: of equal gradients each gets its share.
    chosen = (np.arange(2**k)[::-1, None] >> np.arange(k)) & 1
    faces = jnp.asarray(chosen, dtype)
    on = faces[:, :, None] * faces[:, None, :]
    ridge = 1 - faces + 4 * k * eps * faces
    whole, b = hessian[None], b[None]
    inverses = _invert(whole * on + ridge[:, :, None] * jnp.eye(k, dtype=dtype)[None])

    def times(matrices: jax.Array, points: jax.Array) -> jax.Array:
        return jnp.sum(matrices * points[:, None, :], -1)

    x = times(inverses, b * faces) * faces
    # Undo the effect of the ridge, unless that is only rounding.
    refined = x + times(inverses, (b - times(whole, x)) * faces) * faces
    points, own = jnp.concatenate([refined, x]), jnp.concatenate([faces, faces]) > 0
    rest = b - times(whole, points)
    fault = jnp.max(jnp.where(own, jnp.abs(rest), rest), -1)
    rounding = jnp.max(eps * (jnp.abs(b) + times(jnp.abs(whole), points)), -1)
    fault = jnp.maximum(fault, rounding)
    fault = jnp.where(jnp.all(points >= 0, -1), fault, jnp.inf)
    return points[jnp.argmax(fault <= 4 * jnp.min(fault))]


def _invert(matrices: jax.Array) -> jax.Array:
    """Inverts positive definite matrices ``[n, k, k]``, which need no pivots."""
    k = matrices.shape[-1]
    identity = jnp.broadcast_to(jnp.eye(k, dtype=matrices.dtype)[None], matrices.shape)
    table = jnp.concatenate([matrices, identity], -1)
    for p in range(k):
        row = table[:, p, None, :] / table[:, p, p, None, None]
        cleared = table - table[:, :, p, None] * row
        table = jnp.where((np.arange(k) == p)[None, :, None], row, cleared)
    return table[:, :, k:]


def search_active_set(hessian: Gram, b: Weights) -> Weights:
    """Searches face by face with the method of Lawson and Hanson.

    It frees the coordinate of steepest descent and walks to the minimum over the free
    ones, stopping wherever one of them becomes zero.
    """
    k = len(b)
    sizes, eps = jnp.abs(hessian), jnp.finfo(hessian.dtype).eps

    def body(search: _Search) -> _Search:
        x, passive = search.point, search.passive
        goal = solve_face(hessian, b, passive)
        blocked = passive & (goal <= 0)
        feasible = ~jnp.any(blocked)

        gap = jnp.where(blocked, x - goal, 1)
        reach = jnp.where(blocked, x / jnp.where(gap > 0, gap, 1), jnp.inf)
        length = jnp.min(reach)
        hit = blocked & (reach <= length)
        part = jnp.where(feasible, 0, length)
        on_the_way = jnp.where(hit, 0, jnp.maximum(x + part * (goal - x), 0))
        # A coordinate that returns at once was freed for a slope that is only rounding:
        # from then on it needs a larger one, or the search would cycle.
        failed = search.failed | (hit & ~feasible & (length <= 0))

        slope = jnp.where(passive, -jnp.inf, b - dot(hessian, goal))
        rounding = eps * (jnp.abs(b) + dot(sizes, goal))
        excess = slope - jnp.where(failed, 64, 2) * rounding
        best = jnp.argmax(excess)
        enter = excess[best] > 0
        freed = passive | (enter & (jnp.arange(k) == best))
        return _Search(
            point=jnp.where(feasible, goal, on_the_way),
            passive=jnp.where(feasible, freed, passive & ~hit),
            failed=failed,
            done=feasible & ~enter,
            count=search.count + 1,
        )

    def unfinished(search: _Search) -> jax.Array:
        return ~search.done & (search.count < 8 * k + 8)

    start = _Search(
        point=jnp.zeros_like(b),
        passive=jnp.zeros(k, bool),
        failed=jnp.zeros(k, bool),
        done=jnp.zeros((), bool),
        count=jnp.zeros((), jnp.int32),
    )
    x = jax.lax.while_loop(unfinished, body, start).point
    # Undo the effect of the ridge, unless that is only rounding.
    face = x > 0

    def fault(x: Weights) -> Scalar:
        rest = b - dot(hessian, x)
        return jnp.max(jnp.where(face, jnp.abs(rest), rest))

    refined = x + solve_face(hessian, b - dot(hessian, x), face)
    better = jnp.all(refined >= 0) & (fault(refined) < fault(x))
    return jnp.where(better, refined, x)
