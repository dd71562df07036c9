"""A convex quadratic over the non-negative orthant, and what reduces to it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdopt._linalg import dot, solve
from kdopt._typing import Gram, Scalar, Weights


class _Search(NamedTuple):
    """Where an active-set search stands."""

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

    The active-set method of Lawson and Hanson: finite, and exact up to the rounding of
    one linear system. It frees the coordinate of steepest descent and walks to the
    minimum over the free ones, stopping wherever one of them becomes zero.

    Args:
        hessian: Positive semi-definite with a diagonal of order 1, ``[k, k]``.
        linear: ``[k]``.

    Returns:
        ``[k]``. The condition ``H x >= b`` holds to a few rounding errors of the terms
        of each sum.
    """
    k = len(linear)
    scale = jnp.max(jnp.abs(linear))
    scale = jnp.where(scale > 0, scale, 1)
    b = linear / scale
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
        # A coordinate that goes back at once was freed for a slope of mere rounding:
        # from then on it needs a larger one, or the search would turn in a circle.
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
    # What the ridge took away comes back, unless that is nothing but rounding.
    face = x > 0

    def fault(x: Weights) -> Scalar:
        rest = b - dot(hessian, x)
        return jnp.max(jnp.where(face, jnp.abs(rest), rest))

    refined = x + solve_face(hessian, b - dot(hessian, x), face)
    better = jnp.all(refined >= 0) & (fault(refined) < fault(x))
    return jnp.where(better, refined, x) * scale
