"""Attention transfer: where in the image the networks look."""

import jax.numpy as jnp
from jaxtyping import Array

from kdopt._typing import Scalar
from kdopt.losses._reduce import batch_mean
from kdopt.losses._safe import unit
from kdopt.losses._shapes import Maps, Rows
from kdopt.losses._stages import paired_stages


def at(
    student_maps: Maps,
    teacher_maps: Maps,
    *,
    power: int = 2,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes the squared distance between attention maps, summed over stages.

    .. math::
        L = \sum_l \frac{1}{B H_l W_l} \sum_b
            \lVert q(F^s_{lb}) - q(F^t_{lb}) \rVert^2, \qquad
        q(F) = \frac{a}{\lVert a \rVert}, \quad
        a_{hw} = \frac1C \sum_c |F_{hwc}|^p

    The numbers of channels may differ, since channels are averaged.

    Args:
        student_maps: :math:`F^s_l`, ``[b, h, w, c]`` each, or tokens ``[b, t, d]``.
        teacher_maps: :math:`F^t_l`, the same number; the larger map of a stage is
            average-pooled to the smaller. No gradient flows into them.
        power: :math:`p \ge 1`.
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding.

    Returns:
        The mean loss, at least float32. A zero map has no attention: it counts as zeros
        and gets no gradient.

    Raises:
        ValueError: If the numbers of stages differ or are 0, or a shape is wrong.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[3.0, 0.0], [0.0, 0.0]]).reshape(1, 2, 2, 1)
        >>> teacher = jnp.array([[0.0, 2.0], [0.0, 0.0]]).reshape(1, 2, 2, 1)
        >>> print(losses.at([student], [teacher]))
        0.5

    References:
        Zagoruyko and Komodakis, `Paying More Attention to Attention
        <https://arxiv.org/abs/1612.03928>`_, ICLR 2017, section 3.1

    Notes:
        As in the reference code (megvii-research/mdistiller a08d46f) the squares are
        averaged over positions, with weight 1000, where the paper takes the norm. That
        code raises signed activations to the power; here, as in the paper, their
        absolute values.
    """
    pairs, weights = paired_stages(
        student_maps, teacher_maps, sample_weights, tokens=True
    )
    terms = []
    for student, teacher in pairs:
        gap = _attention(student, power) - _attention(teacher, power)
        per_sample = jnp.mean(jnp.square(gap), axis=(1, 2))
        terms.append(batch_mean(per_sample, weights))
    return jnp.sum(jnp.stack(terms))


def _attention(features: Array, power: int) -> Array:
    # One scale per map does not change its direction, and keeps the power in range.
    activity = jnp.abs(unit(features, axis=(1, 2, 3))) ** power
    return unit(jnp.mean(activity, axis=-1), axis=(1, 2))
