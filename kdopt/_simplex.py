"""Small solvers on a Gram matrix ``[k, k]``: no gradient is touched here."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from kdopt._typing import Gram, Scalar, Weights

MAX_ENUMERATED = 4
"""Number of losses up to which every face of the simplex is tried."""


def normalize(gram: Gram) -> tuple[Gram, Scalar]:
    """Scales a Gram matrix so that its largest diagonal entry is 1.

    Products of entries then neither overflow nor vanish. A zero matrix stays zero.

    Returns:
        The scaled matrix and the scale it was divided by.
    """
    scale = jnp.max(jnp.diagonal(gram))
    scale = jnp.where(scale > 0, scale, 1)
    return gram / scale, scale


def min_norm_point(gram: Gram) -> Weights:
    r"""Weights of the point of least norm in the convex hull of the gradients.

    .. math:: w = \arg\min_{w \ge 0, \, \sum w = 1} w^\top G w

    Gradients that are exactly zero get no weight, unless all are zero (then the
    weights are equal): the literal minimiser would put everything on them, and one
    converged loss would stop the others.

    Args:
        gram: ``[k, k]``, k at most 4.

    Returns:
        Non-negative weights of sum one, ``[k]``. Exact to rounding: a closed form for
        two losses, else the best of all faces of the simplex.
    """
    k = len(gram)
    if k == 1:
        return jnp.ones(1, gram.dtype)
    gram, _ = normalize(gram)
    active = jnp.diagonal(gram) > 0
    weights = _pair(gram, clip=True) if k == 2 else _best_face(gram)
    weights = jnp.where(active, weights, 0)
    # Two losses, one at zero: the closed form gave everything to the inactive one.
    rest = jnp.where(jnp.any(active), active, True).astype(gram.dtype)
    weights = jnp.where(jnp.sum(weights) > 0, weights, rest)
    return weights / jnp.sum(weights)


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
    gram, _ = normalize(gram)
    if k == 2:
        return _pair(gram, clip=False)
    weights = _stationary(gram, jnp.ones(k, bool))
    finite = jnp.all(jnp.isfinite(weights))
    return jnp.where(finite, weights, jnp.full(k, 1 / k, gram.dtype))


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


def _stationary(gram: Gram, face: jax.Array) -> Weights:
    """Stationary point of the quadratic on the affine hull of one face.

    Solves the bordered system ``[G 1; 1' 0] [w; -m] = [0; 1]``, which is singular
    only if the gradients of the face are affinely dependent.
    """
    k = len(gram)
    on = face.astype(gram.dtype)
    block = gram * on[:, None] * on[None, :] + jnp.diag(1 - on)
    top = jnp.concatenate([block, on[:, None]], axis=1)
    bottom = jnp.concatenate([on, jnp.zeros(1, gram.dtype)])[None, :]
    target = jnp.zeros(k + 1, gram.dtype).at[k].set(1)
    return jnp.linalg.solve(jnp.concatenate([top, bottom]), target)[:k]


def _best_face(gram: Gram) -> Weights:
    """Tries the stationary point of every face and keeps the best feasible one."""
    k = len(gram)
    faces = np.array(list(itertools.product((False, True), repeat=k))[1:])
    allowed = jnp.all(~faces | (jnp.diagonal(gram) > 0)[None, :], axis=-1)
    points = jax.vmap(_stationary, in_axes=(None, 0))(gram, jnp.asarray(faces))
    # Clipped and rescaled, every candidate is feasible, so that the smallest value
    # wins without any tolerance: the minimiser itself is among them, unchanged.
    points = jnp.where(faces, jnp.clip(points, 0, None), 0)
    points = points / jnp.sum(points, axis=-1, keepdims=True)
    norms = jnp.einsum("fi,ij,fj->f", points, gram, points)
    norms = jnp.where(allowed & jnp.isfinite(norms), norms, jnp.inf)
    best = points[jnp.argmin(norms)]
    return jnp.where(jnp.isfinite(best), best, 0)
