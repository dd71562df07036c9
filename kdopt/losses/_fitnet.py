"""FitNet: the hint loss between feature maps."""

import jax.numpy as jnp

from kdopt._typing import Scalar
from kdopt.losses._reduce import batch_mean
from kdopt.losses._shapes import Rows
from kdopt.losses._stages import paired_maps


def fitnet(
    student_map: Rows,
    teacher_map: Rows,
    *,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes the mean squared difference of two feature maps.

    .. math:: L = \frac{1}{B H W C} \sum_b \lVert r(F^s_b) - F^t_b \rVert^2

    Args:
        student_map: :math:`r(F^s)`, ``[b, h, w, c]`` or tokens ``[b, t, d]``, the
            student's map, brought to the teacher's channels by a trained regressor.
        teacher_map: :math:`F^t`, ``[b, h', w', c]``; the larger map is average-pooled
            to the smaller. No gradient flows into it.
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding.

    Returns:
        The mean loss, at least float32.

    Raises:
        ValueError: If the channels differ, or a shape is wrong.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student, teacher = jnp.zeros((2, 4, 4, 3)), jnp.full((2, 8, 8, 3), 0.5)
        >>> print(losses.fitnet(student, teacher))
        0.25

    References:
        Romero et al., `FitNets: Hints for Thin Deep Nets
        <https://arxiv.org/abs/1412.6550>`_, ICLR 2015, section 2.2

    Notes:
        The paper sums and trains the hint in a separate stage; the reference code
        (megvii-research/mdistiller a08d46f) averages and trains jointly, with weight
        100.
    """
    student, teacher, weights = paired_maps(
        student_map, teacher_map, sample_weights, same_channels=True, tokens=True
    )
    per_sample = jnp.mean(jnp.square(student - teacher), axis=(1, 2, 3))
    return batch_mean(per_sample, weights)
