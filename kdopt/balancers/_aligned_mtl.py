"""Aligned-MTL: make the gradients orthogonal and equally long, then average."""

from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from kdopt._checks import (
    Preference,
    check_choice,
    check_preference,
    preference_array,
)
from kdopt._linalg import dot
from kdopt._simplex import normalize
from kdopt._spectrum import positive_spectrum
from kdopt._transform import from_gram, gram_only
from kdopt._typing import Balancer, Gram, Scalar, Weights

AlignedScale: TypeAlias = Literal["min", "median", "mean"]


def aligned_mtl_weights(
    gram: Gram, *, scale: AlignedScale = "min", preference: Preference = None
) -> Weights:
    r"""Returns the weights of the mean of the aligned gradients.

    With the eigenvalues and eigenvectors :math:`G = V \Lambda V^\top`:

    .. math:: w = B p, \qquad B = \sqrt{\sigma} \, V \Lambda^{-1/2} V^\top

    The rows of :math:`B J` are orthogonal, all of length :math:`\sqrt\sigma`, and as
    close to the gradients as such vectors can be; :math:`\sigma` is the smallest, the
    median or the mean of the nonzero eigenvalues.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        scale: ``"min"`` (paper), ``"median"`` or ``"mean"``.
        preference: :math:`p`, ``[k]``; ``1 / K`` each by default.

    Returns:
        Weights, ``[k]``; the preference itself where all gradients are zero. Accurate
        to rounding times the ratio of the largest to the smallest eigenvalue.

    Raises:
        ValueError: If ``scale`` is unknown, or there are not K preferences.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print("{:.4f} {:.4f}".format(*kdopt.aligned_mtl_weights(gram)))
        0.5591 0.4083

    References:
        Senushkin et al., `Independent Component Alignment for Multi-Task Learning
        <https://arxiv.org/abs/2305.19000>`_, CVPR 2023, Algorithm 1
    """
    check_choice("scale", scale, get_args(AlignedScale))
    p = preference_array(preference, len(gram), gram.dtype)
    values, vectors, counts = positive_spectrum(normalize(gram)[0])
    sigma = _scale(values, counts, scale)
    ratio = jnp.where(counts, sigma / jnp.where(counts, values, 1), 0)
    weights = dot(vectors * jnp.sqrt(ratio)[None, :], dot(vectors.T, p))
    return jnp.where(jnp.any(counts), weights, p)


def _scale(values: Weights, counts: jax.Array, scale: AlignedScale) -> Scalar:
    """Returns the smallest, lower median or mean of the eigenvalues that count."""
    rank = jnp.sum(counts)
    skipped = len(values) - rank  # ascending order: what does not count comes first
    if scale == "mean":
        total = jnp.sum(jnp.where(counts, values, 0))
        return total / jnp.maximum(rank, 1).astype(values.dtype)
    offset = 0 if scale == "min" else jnp.maximum(rank - 1, 0) // 2
    return values[jnp.minimum(skipped + offset, len(values) - 1)]


def aligned_mtl(
    *,
    num_losses: int = 2,
    scale: AlignedScale = "min",
    preference: Preference = None,
    axis_name: str | None = None,
) -> Balancer:
    """Balances by aligning the principal components of the gradients (Aligned-MTL).

    The gradients are replaced by orthogonal ones of equal length, so that no loss
    dominates and none conflicts with another. The preference decides where on the
    Pareto front the descent ends.

    Args:
        num_losses: K.
        scale: ``"min"``, ``"median"`` or ``"mean"`` of the eigenvalues; sets only the
            length of the update.
        preference: Relative importance of the losses, ``[k]``.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`aligned_mtl_weights` for the equation. Weights are of
        order 1/K and do not change if all gradients are scaled together; with ``"min"``
        the update is as short as the least principal component. Parallel or opposite
        gradients count as the one component that they span.

    Raises:
        ValueError: If ``scale`` is unknown, or a preference is negative or missing.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.aligned_mtl()
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(3)))
        >>> print("{:.4f} {:.4f} {:.4f}".format(*update))
        0.2133 0.9673 0.9673

    Notes:
        The authors' code has three modes, ``min``, ``median`` and ``rmse``; the last is
        the mean of the eigenvalues, here called ``mean``.
    """
    check_choice("scale", scale, get_args(AlignedScale))
    check_preference(preference, num_losses)
    weights_fn = gram_only(aligned_mtl_weights, scale=scale, preference=preference)
    return from_gram(weights_fn, num_losses, axis_name=axis_name)
