"""Neuron selectivity transfer: the distributions of the channels' patterns."""

import jax.numpy as jnp

from kdopt._typing import Scalar
from kdopt.losses._reduce import batch_mean
from kdopt.losses._safe import unit
from kdopt.losses._shapes import Maps, Rows
from kdopt.losses._sharding import einsum
from kdopt.losses._stages import paired_stages


def nst(
    student_maps: Maps,
    teacher_maps: Maps,
    *,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes the squared MMD of channel patterns, summed over stages.

    .. math::
        L = \sum_l \frac1B \sum_b \big[ \overline{k(t, t)} + \overline{k(s, s)}
            - 2 \, \overline{k(s, t)} \big], \qquad
        k(u, v) = \langle u, v \rangle^2

    with :math:`s, t` the channels of a map as vectors over the positions, of length 1,
    and bars for means over pairs of channels. The numbers of channels may differ.

    Args:
        student_maps: ``[b, h, w, c]`` each, or tokens ``[b, t, d]``.
        teacher_maps: The same number of maps; the larger map of a stage is
            average-pooled to the smaller. No gradient flows into them.
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding.

    Returns:
        The mean loss, at least float32; never negative, except for rounding.

    Raises:
        ValueError: If the numbers of stages differ or are 0, or a shape is wrong.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[3.0, 0.0], [0.0, 0.0]]).reshape(1, 2, 2, 1)
        >>> teacher = jnp.array([[0.0, 2.0], [0.0, 0.0]]).reshape(1, 2, 2, 1)
        >>> print(losses.nst([student], [teacher]))
        2.0

    References:
        Huang and Wang, `Like What You Like: Knowledge Distill via Neuron Selectivity
        Transfer <https://arxiv.org/abs/1707.01219>`_, 2017, quadratic kernel

    Notes:
        The kernel is quadratic, so the discrepancy is the squared distance between the
        means of :math:`u u^\top`. It is computed that way if there are fewer positions
        than channels, and from pairs of channels otherwise.
    """
    pairs, weights = paired_stages(
        student_maps, teacher_maps, sample_weights, tokens=True
    )
    terms = []
    for student, teacher in pairs:
        s, t = _patterns(student), _patterns(teacher)
        if s.shape[1] <= max(s.shape[2], t.shape[2]):
            gap = _second_moment(s) - _second_moment(t)
            per_sample = jnp.sum(jnp.square(gap), axis=(1, 2))
        else:
            per_sample = _kernel(t, t) + _kernel(s, s) - 2 * _kernel(s, t)
        terms.append(batch_mean(per_sample, weights))
    return jnp.sum(jnp.stack(terms))


def _patterns(features):
    """Returns the channels as unit vectors over positions, ``[b, h * w, c]``."""
    return unit(features.reshape(len(features), -1, features.shape[-1]), axis=1)


def _second_moment(u):
    return einsum("bpi,bqi->bpq", u, u) / u.shape[2]


def _kernel(u, v):
    products = einsum("bpi,bpj->bij", u, v)
    return jnp.mean(jnp.square(products), axis=(1, 2))
