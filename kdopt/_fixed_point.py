"""The fixed points of Nash-MTL and FairGrad."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdopt._linalg import dot, solve
from kdopt._simplex import unit_gram
from kdopt._typing import Gram, Weights

NUM_STEPS = 60
"""Maximum number of Newton steps; a dozen is usual."""


class _Newton(NamedTuple):
    """State of the iteration."""

    point: Weights
    change: jax.Array
    count: jax.Array


def fair_point(gram: Gram, alpha: float | jax.Array) -> Weights:
    r"""Finds the weights under which every loss falls at a fair rate.

    .. math:: G w = w^{-1 / \alpha}, \qquad w > 0

    This is where :math:`\tfrac12 w^\top G w - \sum_i w_i^p / p` is least, with
    :math:`p = 1 - 1 / \alpha`: a convex function, minimised by Newton's method from
    the solution for orthogonal gradients.

    Args:
        gram: ``[k, k]``.
        alpha: Positive; 1 is the Nash bargaining solution.

    Returns:
        Weights, ``[k]``: positive unless they underflow, as for a loss that the others
        lower anyway, and 0 for a zero gradient. For exactly opposite gradients, where
        no solution exists, they are large but finite.
    """
    dtype = gram.dtype
    k = len(gram)
    cosines, norms, active = unit_gram(gram)
    power = 1 / jnp.asarray(alpha, dtype)
    # With w = y * n^(-2 alpha / (1 + alpha)) orthogonal gradients give y = 1, and the
    # equations become C (b y) = b y^(-1 / alpha).
    longest = jnp.max(jnp.where(active, norms, 0))
    relative = norms / jnp.where(longest > 0, longest, 1)
    exponent = (power - 1) / (power + 1)
    b = jnp.where(active, relative**exponent, 0)
    b = b / jnp.maximum(jnp.max(b), jnp.finfo(dtype).tiny)
    eps = jnp.finfo(dtype).eps
    cosines = cosines + k * eps / 2 * jnp.eye(k, dtype=dtype)
    lengths = jnp.asarray(0.5 ** np.arange(12), dtype)
    least = 0.1 ** jnp.clip(1 / power, 1, 2)
    # A rate to the power of -alpha multiplies its rounding errors by alpha.
    tolerance = 8 * eps * jnp.maximum(1 / power, 1)

    def residual(y: Weights) -> Weights:
        return jnp.where(active, dot(cosines, b * y) - b * y**-power, 0)

    def floor(y: Weights) -> Weights:
        # A y below this matters neither to its own loss nor, by its length, to the
        # others.
        shorter = jnp.max(b * y) / jnp.where(b > 0, b, 1)
        return eps / 16 * jnp.minimum(shorter, 1)

    def body(newton: _Newton) -> _Newton:
        y = newton.point
        error = residual(y)
        hessian = cosines + jnp.diag(power * y ** (-power - 1))
        move = -solve(hessian, error)
        move = jnp.where(active & (b > 0), move / jnp.where(b > 0, b, 1), 0)
        # No y shrinks so fast that its power overflows...
        move = jnp.maximum(move, (least - 1) * y)
        # ... and not past the minimum along the way, by more than rounding.
        tries = y[None, :] + lengths[:, None] * move[None, :]
        slopes = dot(jax.vmap(residual)(tries), b * move)
        start = jnp.abs(dot(error, b * move))
        best = tries[jnp.argmax(slopes <= 0.5 * start)]
        new = jnp.where(active, jnp.maximum(best, floor(best)), 1)
        return _Newton(new, jnp.max(jnp.abs(new - y) / y), newton.count + 1)

    def unfinished(newton: _Newton) -> jax.Array:
        return (newton.change > tolerance) & (newton.count < NUM_STEPS)

    begin = _Newton(
        jnp.ones(k, dtype), jnp.asarray(1.0, dtype), jnp.zeros((), jnp.int32)
    )
    y = jax.lax.while_loop(unfinished, body, begin).point
    # In logarithms, since weights may differ by more orders of magnitude than floats
    # can: a loss that the others lower anyway gets what its rate asks for, and all are
    # scaled down together if one would overflow.
    rates = dot(cosines, b * y)
    helped = active & (y <= 2 * floor(y)) & (rates > 0)
    asked = jnp.log(jnp.where(helped, rates, 1)) - jnp.log(jnp.where(helped, b, 1))
    logs = jnp.minimum(jnp.log(y), jnp.where(helped, -asked / power, jnp.inf))
    exponent = 2 / (1 + power)
    total = logs - exponent * jnp.log(norms)
    largest = jnp.log(jnp.finfo(dtype).max / 128)
    excess = jnp.maximum(jnp.max(jnp.where(active, total, -jnp.inf)) - largest, 0)
    return jnp.where(active, jnp.exp(logs - excess) / norms**exponent, 0)
