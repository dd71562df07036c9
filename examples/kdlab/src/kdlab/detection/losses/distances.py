"""Distillation losses between the tokens of two detectors."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from kdlab.models.vidt import Detections

NUM_KINDS = 6  # tokens of four scales, of the body, of the neck
_TINY = 1e-12  # norms up to this one count as 0
_CONSTANT = 1e-4  # deviations up to this fraction of a channel's values count as 0

Rows = Float[Array, "b m d"]


def token_matching(student: Detections, teacher: Detections) -> Array:
    r"""Computes the distance between tokens at the same place.

    .. math::
        L = \sqrt{\sum_{s=1}^{4} \overline{\lVert p_s - \hat p_s \rVert} +
            \overline{\lVert b - \hat b \rVert} +
            N \, \overline{\lVert n - \hat n \rVert}}

    with the patch tokens :math:`p_s` of four scales, the detection tokens :math:`b` of
    the body and :math:`n` of the :math:`N` levels of the neck; a bar is the mean over
    tokens and images. The root is that of the reference, not of the paper's equation;
    it halves the gradient of the logarithm, which DTO-KD balances.

    Args:
        student: Outputs of the student.
        teacher: Outputs of the teacher, of the same shapes, without gradient.

    Returns:
        The loss. Its gradient is 0 where both agree.

    References:
        Song et al., `ViDT <https://arxiv.org/abs/2110.03921>`_, ICLR 2022, section 3.4
    """
    rows = list(zip(_rows(student), _rows(teacher), strict=True))
    levels = len(student.neck_det)
    weights = [1.0] * (NUM_KINDS - 1) + [float(levels)]
    total = sum(
        weight * jnp.mean(_norm(ours - jax.lax.stop_gradient(theirs)))
        for weight, (ours, theirs) in zip(weights, rows, strict=True)
    )
    return _root(jnp.asarray(total))


def standardized_distance(
    student: Detections,
    teacher: Detections,
    projectors: Float[Array, "6 d d"],
    *,
    group: int | None,
) -> Array:
    r"""Computes VkD's distance: projected, standardised, smooth L1.

    .. math::
        L = \sum_{k=1}^{6} \overline{h\big(\mathrm{std}(x_k Q_k) -
            \mathrm{std}(\hat x_k)\big)}

    over the tokens of four scales, of the body and of all levels of the neck.
    :math:`\mathrm{std}` subtracts the mean of each channel and divides by its standard
    deviation (``ddof = 1``) over all tokens of a group of images, padding included, and
    :math:`h` is the smooth L1 loss with :math:`\beta = 1`.

    Args:
        student: Outputs of the student.
        teacher: Outputs of the teacher, of the same shapes, without gradient.
        projectors: Orthogonal matrices; see :func:`make_orthogonal`.
        group: Number of images whose tokens are standardised together, consecutive in
            the batch; the reference takes the 2 of each of its devices. None: all
            images of the batch.

    Returns:
        The loss. Channels whose deviation in a group of images is at most 1e-4 of
        their root mean square are constant: there is nothing to learn from one of the
        teacher, and one of the student has no gradient. GroupNorm makes such channels
        of a map of one patch.

    Raises:
        ValueError: If the batch is not a multiple of the group.

    References:
        Miles et al., `VkD <https://arxiv.org/abs/2403.06213>`_, CVPR 2024
    """
    images = len(student.body_det)
    size = group or images
    if images % size:
        raise ValueError(
            f"a batch of {images} images cannot be divided into groups of {size}: "
            "choose a batch size that is a multiple (--batch-size)."
        )
    total = jnp.zeros((), student.body_det.dtype)
    rows = zip(_rows(student), _rows(teacher), projectors, strict=True)
    for ours, theirs, matrix in rows:
        target, varies = jax.lax.stop_gradient(_standardize(theirs, size))
        found, _ = _standardize(ours @ matrix, size)
        gaps = optax.losses.huber_loss(found, target)
        total += jnp.mean(jnp.where(varies, gaps, 0))
    return total


def make_orthogonal(
    skew: Float[Array, "*n d d"], base: Float[Array, "*n d d"]
) -> Float[Array, "*n d d"]:
    r"""Makes orthogonal matrices of unconstrained ones.

    .. math:: Q = B \exp(A), \qquad A = \mathrm{tril}(X) - \mathrm{tril}(X)^\top

    Weight decay of :math:`X` pulls :math:`Q` to :math:`B`.

    Args:
        skew: :math:`X`.
        base: Orthogonal matrices :math:`B`, constant.

    Returns:
        The matrices :math:`Q`.

    Examples:
        >>> q = make_orthogonal(jnp.array([[0.0, 0.0], [jnp.pi / 2, 0.0]]), jnp.eye(2))
        >>> print(abs(q).round(4))
        [[0. 1.]
         [1. 0.]]
    """
    lower = jnp.tril(skew)
    return base @ jax.scipy.linalg.expm(lower - jnp.swapaxes(lower, -1, -2))


def init_projectors(key: Any, width: int) -> tuple[Array, Array]:
    """Draws the projectors of the six kinds of tokens.

    Args:
        key: Random key.
        width: Width of the tokens.

    Returns:
        The parameters :math:`X`, all zero, and the constant matrices :math:`B` of
        :func:`make_orthogonal`, ``[6, d, d]`` each.
    """
    base = jax.random.orthogonal(key, width, (NUM_KINDS,))
    return jnp.zeros_like(base), base


def _rows(found: Detections) -> list[Rows]:
    """Returns the six kinds of tokens, ``[b, tokens, d]`` each."""
    maps = [x.reshape(x.shape[0], -1, x.shape[-1]) for x in found.patch_tokens]
    levels, images, tokens, width = found.neck_det.shape
    neck = jnp.swapaxes(found.neck_det, 0, 1).reshape(images, levels * tokens, width)
    return [*maps, found.body_det, neck]


def _standardize(x: Rows, size: int) -> tuple[Rows, Array]:
    """Standardises channels over the tokens of each group of images.

    Returns the values, 0 for constant channels, and which channels are not constant.
    """
    rows = x.reshape(len(x) // size, -1, x.shape[-1])
    gaps = rows - jnp.mean(rows, axis=1, keepdims=True)
    variance = jnp.sum(gaps**2, axis=1, keepdims=True) / max(rows.shape[1] - 1, 1)
    squares = jnp.mean(rows**2, axis=1, keepdims=True)
    varies = variance > _CONSTANT**2 * squares
    scale = jnp.sqrt(jnp.where(varies, variance, 1))
    return jnp.where(varies, gaps / scale, 0), varies


def _norm(x: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    return _root(jnp.sum(x**2, axis=-1))


def _root(x: Array) -> Array:
    """Computes a square root whose derivative at 0 is 0."""
    positive = x > _TINY**2
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)
