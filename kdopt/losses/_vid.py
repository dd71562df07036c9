"""Variational information distillation: a bound on mutual information."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from kdopt._typing import Scalar
from kdopt.losses._reduce import batch_mean
from kdopt.losses._shapes import Maps, Rows
from kdopt.losses._stages import paired_stages, per_channel


def vid(
    means: Maps,
    scales: Iterable[ArrayLike],
    teacher_maps: Maps,
    *,
    eps: float = 1e-5,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes the Gaussian log-loss of the teacher's maps given the student's.

    .. math::
        L = \sum_l \frac{1}{2 B H_l W_l C_l} \sum_{bhwc} \Big[
            \frac{(F^t_{bhwc} - \mu_{bhwc})^2}{v_c} + \log v_c \Big], \qquad
        v = \mathrm{softplus}(\alpha) + \epsilon

    Args:
        means: :math:`\mu_l`, ``[b, h, w, c]`` each or tokens ``[b, t, d]``, predicted
            from the student's maps by trained regressors.
        scales: :math:`\alpha_l`, ``[c]`` each, trained, unbounded.
        teacher_maps: :math:`F^t_l`, the same number; the larger map of a stage is
            average-pooled to the smaller. No gradient flows into them.
        eps: :math:`\epsilon`, the smallest variance.
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding.

    Returns:
        The mean loss in nats per element, without its constant, at least float32. May
        be negative.

    Raises:
        ValueError: If the numbers of stages or of channels differ, or a shape is wrong.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> mean, teacher = jnp.zeros((1, 2, 2, 1)), jnp.full((1, 2, 2, 1), 2.0)
        >>> print(f"{losses.vid([mean], [jnp.array([1.0])], [teacher]):.4f}")
        1.6592

    References:
        Ahn et al., `Variational Information Distillation for Knowledge Transfer
        <https://arxiv.org/abs/1904.05835>`_, CVPR 2019

    Notes:
        In the reference code (megvii-research/mdistiller a08d46f) the scales never
        reach the optimiser: its variance stays at 5. To reproduce that, pass them
        through ``stop_gradient``.
    """
    pairs, weights = paired_stages(
        means,
        teacher_maps,
        sample_weights,
        names=("means", "teacher_maps"),
        same_channels=True,
        tokens=True,
    )
    terms = []
    for (mean, teacher), alpha in zip(
        pairs, per_channel("scales", scales, pairs), strict=True
    ):
        variance = jax.nn.softplus(alpha) + eps
        surprise = jnp.square(teacher - mean) / variance + jnp.log(variance)
        per_sample = jnp.mean(surprise, axis=(1, 2, 3)) / 2
        terms.append(batch_mean(per_sample, weights))
    return jnp.sum(jnp.stack(terms))
