"""Least-norm points and projections on a Gram matrix ``[k, k]``: no gradient here."""

import jax
import jax.numpy as jnp

from kdopt._linalg import solve
from kdopt._nonnegative import nonnegative_qp
from kdopt._typing import Gram, Scalar, Weights


def normalize(gram: Gram) -> tuple[Gram, Scalar]:
    """Scales a Gram matrix so that its largest diagonal entry is 1.

    Products of entries then neither overflow nor vanish. A zero matrix stays zero.

    Returns:
        The scaled matrix and the scale it was divided by.
    """
    scale = jnp.max(jnp.diagonal(gram))
    scale = jnp.where(scale > 0, scale, 1)
    return gram / scale, scale


def unit_gram(gram: Gram) -> tuple[Gram, Weights, jax.Array]:
    r"""Splits a Gram matrix into cosines and norms.

    .. math:: G = \mathrm{diag}(n) \, C \, \mathrm{diag}(n)

    Solved on :math:`C`, a method loses no digit to gradients of very different length.

    Returns:
        The cosines :math:`C`, ``[k, k]``, with ones on the diagonal; the norms
        :math:`n`, ``[k]``, and which of the gradients are not zero, ``[k]``. A zero
        gradient has norm 1 and cosine 0 here.
    """
    squares = jnp.diagonal(gram)
    active = squares > 0
    norms = jnp.sqrt(jnp.where(active, squares, 1))
    # One division after the other: the product of two norms may overflow.
    cosines = jnp.clip(gram / norms[:, None] / norms[None, :], -1, 1)
    cosines = jnp.where(active[:, None] & active[None, :], cosines, 0)
    identity = jnp.eye(len(gram), dtype=bool)
    return jnp.where(identity, 1, cosines), norms, active


def relative_inverse(norms: Weights, active: jax.Array) -> Weights:
    """Shortest norm over each norm, in (0, 1]; 0 for gradients that are zero."""
    shortest = jnp.min(jnp.where(active, norms, jnp.inf))
    return jnp.where(active, jnp.where(active, shortest, 0) / norms, 0)


def sum_to_one(weights: Weights) -> Weights:
    """Divides by the sum; equal weights where all are zero."""
    total = jnp.sum(weights)
    uniform = jnp.full_like(weights, 1 / len(weights))
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1), uniform)


def min_norm_point(gram: Gram) -> Weights:
    r"""Weights of the point of least norm in the convex hull of the gradients.

    .. math:: w = \arg\min_{w \ge 0, \, \sum w = 1} w^\top G w

    Gradients that are exactly zero get no weight, unless all are zero (then the
    weights are equal): the literal minimiser would put everything on them, and one
    converged loss would stop the others.

    Args:
        gram: ``[k, k]``.

    Returns:
        Non-negative weights of sum one, ``[k]``: a closed form for two losses, else an
        active-set method, exact to rounding of the cosines between the gradients.
    """
    k = len(gram)
    if k == 1:
        return jnp.ones(1, gram.dtype)
    if k == 2:
        active = jnp.diagonal(gram) > 0
        weights = jnp.where(active, _pair(normalize(gram)[0], clip=True), 0)
        # With one gradient zero, the closed form gave everything to that one.
        lost = jnp.sum(weights) == 0
        return sum_to_one(jnp.where(lost, active.astype(gram.dtype), weights))
    # With z = w n in units of the shortest norm the constraint is a z = 1, and the
    # minimiser of z C z + (a z - 1)^2 over z >= 0 is a multiple of the solution.
    cosines, norms, active = unit_gram(gram)
    inverse = relative_inverse(norms, active)
    hessian = cosines + inverse[:, None] * inverse[None, :]
    return sum_to_one(nonnegative_qp(hessian, inverse) * inverse)


def affine_min_norm_point(gram: Gram) -> Weights:
    r"""The same with the sum constraint only: weights may be negative.

    .. math:: w = \arg\min_{\sum w = 1} w^\top G w

    Args:
        gram: ``[k, k]``.

    Returns:
        Weights of sum one, ``[k]``; equal ones where the minimiser is not unique to
        rounding (gradients affinely dependent).
    """
    k = len(gram)
    if k == 1:
        return jnp.ones(1, gram.dtype)
    if k == 2:
        return _pair(normalize(gram)[0], clip=False)
    # The bordered system [G 1; 1' 0] [w; -m] = [0; 1] in units of the norms. A zero
    # gradient keeps its row, of zeros: it takes all the weight, as it should.
    cosines, norms, active = unit_gram(gram)
    cosines = jnp.where(active[:, None], cosines, 0)
    inverse = jnp.where(active, relative_inverse(norms, active), 1)[:, None]
    zero, one = jnp.zeros((1, 1), gram.dtype), jnp.ones(1, gram.dtype)
    matrix = jnp.block([[cosines, inverse], [inverse.T, zero]])
    target = jnp.concatenate([jnp.zeros(k, gram.dtype), one])
    weights = solve(matrix, target)[:k] * inverse[:, 0]
    # A solution that does not solve it betrays a singular matrix.
    total = jnp.sum(weights)
    solved = jnp.isfinite(total) & (jnp.abs(total - 1) < 0.1)
    uniform = jnp.full(k, 1 / k, gram.dtype)
    return jnp.where(solved, weights / jnp.where(solved, total, 1), uniform)


def _pair(gram: Gram, *, clip: bool) -> Weights:
    """The closed form for two losses."""
    a, b, c = gram[0, 0], gram[1, 1], gram[0, 1]
    spread = a + b - 2 * c  # the squared distance between the two gradients
    # Below the rounding error of the subtraction the gradients count as equal.
    flat = spread <= 4 * jnp.finfo(gram.dtype).eps * (a + b)
    second = jnp.where(flat, 0.5, (a - c) / jnp.where(flat, 1, spread))
    if clip:
        second = jnp.clip(second, 0, 1)
    return jnp.stack([1 - second, second])


def project_simplex(point: Weights) -> Weights:
    r"""Projects on the simplex.

    .. math:: \Pi(y) = \arg\min_{w \ge 0, \, \sum w = 1} \lVert w - y \rVert^2
        = \max(y - \theta, 0)

    Args:
        point: ``[k]``.

    Returns:
        Non-negative weights of sum one, ``[k]``.
    """
    point = point - jnp.max(point)  # else a large common part swallows the digits
    ordered = jnp.sort(point, descending=True)
    count = jnp.arange(1, len(point) + 1, dtype=point.dtype)
    levels = (jnp.cumsum(ordered) - 1) / count
    theta = levels[jnp.sum(ordered > levels) - 1]
    return sum_to_one(jnp.maximum(point - theta, 0))
