"""Least-norm points and projections, from a Gram matrix ``[k, k]`` alone."""

import jax
import jax.numpy as jnp

from kdopt._linalg import dot, solve
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

    A method that works on :math:`C` loses no digits to gradients of very different
    length.

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


def enlarge(gram: Gram) -> tuple[Gram, Scalar]:
    """Multiplies a Gram matrix of short gradients by a power of two.

    Small parts of its entries then do not vanish, and large ones do not overflow.

    Returns:
        The matrix and the factor.
    """
    short = jnp.max(jnp.diagonal(gram)) < 1
    factor = jnp.where(short, jnp.asarray(2.0**60, gram.dtype), 1)
    return gram * factor, factor


def equilibrate(gram: Gram) -> tuple[Gram, Weights]:
    r"""Scales all gradients to a length of about one, without any rounding.

    .. math:: G = \mathrm{diag}(p) \, \hat G \, \mathrm{diag}(p)

    with :math:`p` the powers of two next to the norms. Gradients may then differ in
    length by any factor, and products of entries neither overflow nor vanish.

    Returns:
        :math:`\hat G`, ``[k, k]``, with a diagonal between 0.5 and 2.3, and 1 for a
        zero gradient; and :math:`1 / p`, ``[k]``, 0 for a zero gradient.
    """
    squares = jnp.diagonal(gram)
    active = squares > 0
    norms = jnp.sqrt(jnp.where(active, squares, 1))
    inverse = 1 / jax.lax.reduce_precision(norms, jnp.finfo(gram.dtype).nexp, 0)
    scaled = gram * inverse[:, None] * inverse[None, :]
    return jnp.where(jnp.diag(~active), 1, scaled), jnp.where(active, inverse, 0)


def relative_inverse(norms: Weights, active: jax.Array) -> Weights:
    """Returns the shortest norm over each norm, in (0, 1]; 0 for zero gradients."""
    shortest = jnp.min(jnp.where(active, norms, jnp.inf))
    return jnp.where(active, jnp.where(active, shortest, 0) / norms, 0)


def sum_to_one(weights: Weights) -> Weights:
    """Divides by the sum; equal weights where all are zero."""
    total = jnp.sum(weights)
    uniform = jnp.full_like(weights, 1 / len(weights))
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1), uniform)


def min_norm_point(gram: Gram, scales: Weights | None = None) -> Weights:
    r"""Returns the weights of the least-norm point in the hull of the scaled gradients.

    .. math:: w = \arg\min_{w \ge 0, \, \sum_i c_i w_i = 1} w^\top G w

    so that :math:`\pi_i = c_i w_i` are the convex weights of the :math:`g_i / c_i`.

    Gradients that are exactly zero get no weight, unless all are zero (then the
    convex weights are equal): the literal minimiser would put everything on them, and
    one converged loss would stop the others.

    Args:
        gram: ``[k, k]``.
        scales: :math:`c > 0`, ``[k]``; ones by default.

    Returns:
        Non-negative weights, ``[k]``: a closed form for two losses, else an active-set
        method. Each is exact to rounding of the Gram matrix, however much the gradients
        differ in length: none is one minus the others.
    """
    scaled, unit, shares = _in_units(gram, scales)
    if len(gram) <= 2:
        lengths = _pair(scaled, shares, clip=True)
    else:
        # The minimiser of z G z + (a z - 1)^2 over z >= 0 is a multiple of that of
        # z G z where a z = 1.
        hessian = scaled + shares[:, None] * shares[None, :]
        lengths = nonnegative_qp(hessian, shares)
    return _weights(lengths, unit, shares, scales)


def affine_min_norm_point(gram: Gram, scales: Weights | None = None) -> Weights:
    r"""Returns the least-norm weights under the sum constraint alone; may be negative.

    .. math:: w = \arg\min_{\sum_i c_i w_i = 1} w^\top G w

    Args:
        gram: ``[k, k]``.
        scales: :math:`c > 0`, ``[k]``; ones by default.

    Returns:
        ``[k]``, with 0 for a zero gradient; equal convex weights where the minimiser is
        not unique to rounding (gradients affinely dependent).
    """
    k = len(gram)
    scaled, unit, shares = _in_units(gram, scales)
    if k <= 2:
        lengths = _pair(scaled, shares, clip=False)
        return _weights(lengths, unit, shares, scales)
    # The bordered system [G a; a' 0] [z; -m] = [0; 1].
    border = shares[:, None]
    zero, one = jnp.zeros((1, 1), gram.dtype), jnp.ones(1, gram.dtype)
    matrix = jnp.block([[scaled, border], [border.T, zero]])
    target = jnp.concatenate([jnp.zeros(k, gram.dtype), one])
    lengths = solve(matrix, target)[:k]
    # A solution that misses the constraint reveals a singular matrix.
    total = dot(lengths, shares)
    solved = jnp.isfinite(total) & (jnp.abs(total - 1) < 0.1)
    return _weights(jnp.where(solved, lengths, 0), unit, shares, scales)


def _in_units(gram: Gram, scales: Weights | None) -> tuple[Gram, Weights, Weights]:
    r"""Returns the equilibrated Gram matrix, and weights and shares per unit length.

    With lengths :math:`z_i = p_i w_i` in units of the shortest scaled gradient the
    constraint :math:`c^\top w = 1` is :math:`a^\top z = 1`, with :math:`a_i \le 1`.
    """
    scaled, inverse = equilibrate(gram)
    shares = inverse if scales is None else inverse * scales
    most = jnp.max(shares)
    most = jnp.where(most > 0, most, 1)
    return scaled, inverse / most, shares / most


def _weights(
    lengths: Weights, unit: Weights, shares: Weights, scales: Weights | None
) -> Weights:
    """Scales lengths to weights that sum to one; equal ones if all lengths are zero."""
    total = dot(lengths, shares)
    equal = jnp.full_like(unit, 1 / len(unit))
    equal = equal if scales is None else equal / scales
    some = total > 0
    return jnp.where(some, lengths * unit / jnp.where(some, total, 1), equal)


def _pair(gram: Gram, shares: Weights, *, clip: bool) -> Weights:
    """Solves for two lengths in closed form, each from its own numerator."""
    if len(shares) == 1:
        return shares
    (a, c), (_, b) = gram
    s, t = shares
    first, second = b * s - c * t, a * t - c * s
    if clip:
        first, second = jnp.maximum(first, 0), jnp.maximum(second, 0)
    # Below the rounding error of the entries the gradients count as equal.
    largest = b * s**2 + a * t**2
    flat = largest - 2 * c * s * t <= 4 * jnp.finfo(gram.dtype).eps * largest
    total = jnp.where(flat, 1, first * s + second * t)
    equal = jnp.where(shares > 0, 1 / jnp.where(shares > 0, shares, 1), 0)
    return jnp.where(flat, equal, jnp.stack([first / total, second / total]))


def project_simplex(point: Weights, active: jax.Array | None = None) -> Weights:
    r"""Projects onto the simplex.

    .. math:: \Pi(y) = \arg\min_{w \ge 0, \, \sum w = 1} \lVert w - y \rVert^2
        = \max(y - \theta, 0)

    Args:
        point: ``[k]``.
        active: Which coordinates may be positive, ``[k]``; at least one of them, all
            by default.

    Returns:
        Non-negative weights of sum one, ``[k]``.
    """
    if active is not None:
        point = jnp.where(active, point, -jnp.inf)
    point = point - jnp.max(point)  # else a large common part swallows the digits
    ordered = jnp.sort(point, descending=True)
    count = jnp.arange(1, len(point) + 1, dtype=point.dtype)
    levels = (jnp.cumsum(ordered) - 1) / count
    theta = levels[jnp.sum(ordered > levels) - 1]
    return sum_to_one(jnp.maximum(point - theta, 0))


def nonzero(gram: Gram) -> jax.Array:
    """Marks the gradients that are not zero, ``[k]``; all of them if all are zero."""
    some = jnp.diagonal(gram) > 0
    return some | ~jnp.any(some)


def leave_out(gram: Gram, kept: jax.Array) -> Gram:
    """Zeroes the gradients that are not kept, ``[k]``."""
    return jnp.where(kept[:, None] & kept[None, :], gram, 0)
