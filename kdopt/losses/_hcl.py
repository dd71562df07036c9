"""Hierarchical context loss: a feature map compared at several resolutions."""

import jax.numpy as jnp

from kdopt._typing import Scalar
from kdopt.losses._reduce import batch_mean
from kdopt.losses._shapes import Maps, Rows
from kdopt.losses._stages import adaptive_avg_pool, paired_stages


def hcl(
    student_maps: Maps,
    teacher_maps: Maps,
    *,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes squared differences over a pyramid of each map (ReviewKD), over stages.

    .. math::
        L = \sum_l \frac{\sum_k 2^{-k} \, \mathrm{MSE}\big(
            \mathrm{pool}_{n_k}(F^s_l), \mathrm{pool}_{n_k}(F^t_l)\big)}
            {\sum_k 2^{-k}}, \qquad n_0 = H_l, \; n_k \in \{4, 2, 1\}, \; n_k < H_l

    Args:
        student_maps: ``[b, h, w, c]`` each, fused from deep to shallow and brought to
            the teacher's channels by trained layers.
        teacher_maps: The same number of maps; the larger map of a stage is
            average-pooled to the smaller. No gradient flows into them.
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding.

    Returns:
        The mean loss, at least float32.

    Raises:
        ValueError: If the numbers of stages or of channels differ, or a shape is wrong.
            Tokens have no height: put patch tokens on their grid first.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[1.0, 0.0], [0.0, 0.0]]).reshape(1, 2, 2, 1)
        >>> print(f"{losses.hcl([student], [0 * student]):.4f}")
        0.1875

    References:
        Chen et al., `Distilling Knowledge via Knowledge Review
        <https://arxiv.org/abs/2104.09044>`_, CVPR 2021
    """
    pairs, weights = paired_stages(
        student_maps, teacher_maps, sample_weights, same_channels=True
    )
    terms = []
    for student, teacher in pairs:
        # Pooling is linear, so only the gap is pooled.
        gap = student - teacher
        height, width = gap.shape[1:3]
        sizes = [(height, width)]
        sizes += [(n, min(n, width)) for n in (4, 2, 1) if n < height]
        shares = [2.0**-k for k in range(len(sizes))]
        levels = [
            share * jnp.mean(jnp.square(adaptive_avg_pool(gap, size)), axis=(1, 2, 3))
            for share, size in zip(shares, sizes, strict=True)
        ]
        per_sample = jnp.sum(jnp.stack(levels), axis=0) / sum(shares)
        terms.append(batch_mean(per_sample, weights))
    return jnp.sum(jnp.stack(terms))
