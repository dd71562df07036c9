"""KD-SVD: how the leading singular vectors of the maps change with depth."""

import itertools

import jax
import jax.numpy as jnp

from kdopt._typing import Scalar
from kdopt.losses._reduce import batch_mean, divide_or_zero
from kdopt.losses._safe import unit
from kdopt.losses._shapes import Maps, Rows
from kdopt.losses._sharding import einsum
from kdopt.losses._stages import paired_stages


def kdsvd(
    student_maps: Maps,
    teacher_maps: Maps,
    *,
    num_vectors: int = 1,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Compares correlations between singular vectors of consecutive stages.

    .. math::
        L = \frac1B \sum_b \sum_{l \ge 2} \sum_{w w' i} \Big(
            K(v^s_{l,w,i}, v^s_{l-1,w',i}) - K(v^t_{l,w,i}, v^t_{l-1,w',i}) \Big)^2,
        \qquad K(x, y) = e^{-(x - y)^2 / 8}

    with :math:`v^t_{l,\cdot,i}` the :math:`i`-th right singular vector of the map as a
    matrix ``[c * h, w]``, times its singular value over the norm of those kept, and
    :math:`v^s` that of the student's leading vectors which is most parallel to it,
    with its sign and times the same value.

    Args:
        student_maps: ``[b, h, w, c]`` each, at least two stages.
        teacher_maps: The same number of maps; the larger map of a stage is
            average-pooled to the smaller. No gradient flows into them. The numbers of
            channels may differ.
        num_vectors: How many of the teacher's vectors to keep; the student has three
            more to choose from.
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding.

    Returns:
        The mean loss, at least float32. Where singular values coincide the vectors are
        undefined, and the gradient omits rotations between them.

    Raises:
        ValueError: If there are fewer than two stages, their numbers differ, a map is
            narrower than ``num_vectors``, or a shape is wrong.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> near, far = jnp.eye(4)[:2], jnp.eye(4)[2:]
        >>> student = [near.reshape(2, 1, 4, 1), near.reshape(2, 1, 4, 1)]
        >>> teacher = [near.reshape(2, 1, 4, 1), far.reshape(2, 1, 4, 1)]
        >>> print(f"{losses.kdsvd(student, teacher):.4f}")
        0.0000

    References:
        Lee, Kim and Song, `Self-supervised Knowledge Distillation Using Singular Value
        Decomposition <https://arxiv.org/abs/1807.06819>`_, ECCV 2018

    Notes:
        The paper decomposes ``[h * w, c]``, which needs equal channels; its PyTorch
        version (megvii-research/mdistiller a08d46f) decomposes ``[c * h, w]``, as here,
        and fails if widths differ. The loss depends on the signs of the teacher's
        vectors, which a decomposition leaves open: here the sum of each is made
        non-negative.
    """
    pairs, weights = paired_stages(student_maps, teacher_maps, sample_weights)
    if len(pairs) < 2:
        raise ValueError("kdsvd compares consecutive stages: pass at least two.")
    narrowest = min(student.shape[2] for student, _ in pairs)
    if not 1 <= num_vectors <= narrowest:
        raise ValueError(
            f"num_vectors must be between 1 and the width of the narrowest map, "
            f"{narrowest}, got {num_vectors}."
        )
    spectra = _spectra([x for pair in pairs for x in pair])
    stages = [
        _aligned(student, teacher, num_vectors)
        for student, teacher in zip(spectra[::2], spectra[1::2], strict=True)
    ]
    terms = []
    for (ours_before, theirs_before), (ours, theirs) in itertools.pairwise(stages):
        gap = _kernel(ours, ours_before) - _kernel(theirs, theirs_before)
        per_sample = jnp.sum(jnp.square(gap), axis=(1, 2, 3))
        terms.append(batch_mean(per_sample, weights))
    return jnp.sum(jnp.stack(terms))


def _kernel(x, y):
    return jnp.exp(-jnp.square(x[:, :, None] - y[:, None, :]) / 8)


def _aligned(student, teacher, k):
    """Returns scaled vectors of the student and the teacher, ``[b, w, k]`` each."""
    ours, theirs = student[1][..., : k + 3], teacher[1][..., :k]
    theirs *= jnp.where(jnp.sum(theirs, axis=1, keepdims=True) < 0, -1, 1)
    cosines = jax.lax.stop_gradient(einsum("bwi,bwj->bij", ours, theirs))
    best = jnp.argmax(jnp.abs(cosines), axis=1, keepdims=True)
    is_best = jnp.arange(ours.shape[2], dtype=best.dtype)[None, :, None] == best
    ours = einsum("bwi,bij->bwj", ours, jnp.where(is_best, jnp.sign(cosines), 0))
    singular = unit(teacher[0][:, :k])[:, None]
    return ours * singular, jax.lax.stop_gradient(theirs * singular)


def _spectra(maps):
    """Computes singular values ``[b, w]`` and vectors ``[b, w, w]``, largest first.

    All maps share one decomposition, the narrower ones padded with zeros: on a CPU the
    examples of a batch are divided among threads, and two concurrent decompositions can
    deadlock waiting for each other's threads.
    """
    widths = [x.shape[2] for x in maps]
    grams = [
        jnp.pad(gram, ((0, 0), (0, max(widths) - w), (0, max(widths) - w)))
        for gram, w in zip(map(_gram, maps), widths, strict=True)
    ]
    values, vectors = _eigh(jnp.stack(grams))
    singular = jnp.sqrt(jnp.maximum(jax.lax.stop_gradient(values[..., ::-1]), 0))
    return [
        (singular[i, :, :w], vectors[i, :, :w, ::-1][:, :, :w])
        for i, w in enumerate(widths)
    ]


def _gram(features):
    """Multiplies the columns of each example as a matrix ``[c * h, w]``."""
    # The scale of a map does not affect its vectors; unit scale keeps these in range.
    x = unit(features, axis=(1, 2, 3))
    return einsum("bhic,bhjc->bij", x, x)


@jax.custom_jvp
def _eigh(gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    values, vectors = jnp.linalg.eigh(gram, symmetrize_input=False)
    return values, vectors


@_eigh.defjvp
def _eigh_jvp(primals, tangents):
    """Applies the usual rule, without rotations between equal eigenvalues."""
    values, vectors = _eigh(*primals)
    half = einsum("lbki,lbkj->lbij", vectors, tangents[0])
    turned = einsum("lbik,lbkj->lbij", half, vectors)
    gaps = values[..., None, :] - values[..., :, None]
    noise = 16 * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values), axis=-1)
    gaps = jnp.where(jnp.abs(gaps) > noise[..., None, None], gaps, 0)
    rates = einsum("lbik,lbkj->lbij", vectors, divide_or_zero(turned, gaps))
    return (values, vectors), (jnp.diagonal(turned, axis1=2, axis2=3), rates)
