"""Overhaul of feature distillation: partial distance with a margin."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm as normal
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from kdopt._dtypes import at_least_float32
from kdopt._typing import Scalar
from kdopt.losses._reduce import batch_mean
from kdopt.losses._shapes import Maps, Rows, as_array, show
from kdopt.losses._stages import paired_stages, per_channel


def ofd(
    student_maps: Maps,
    teacher_maps: Maps,
    margins: Iterable[ArrayLike],
    *,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes a partial squared distance of pre-activation maps, over stages.

    .. math::
        L = \sum_{l=1}^{n} \frac{1}{2^{n-l} B} \sum_b \sum_{hwc}
            d(s_{lbhwc}, t_{lbhwc}, m_{lc})

    .. math::
        d(s, t, m) = \begin{cases}
            (s - t)^2 & t > 0 \\
            (s - t)^2 & m < t \le 0, \; s > t \\
            (s - m)^2 & t \le m, \; s > m \\
            0 & \text{otherwise}
        \end{cases}

    Where the teacher's unit is off, the student's need only be off too. Each stage has
    half the weight of the next deeper one.

    Args:
        student_maps: :math:`s_l`, ``[b, h, w, c]`` each or tokens ``[b, t, d]``,
            brought to the teacher's channels by trained connectors.
        teacher_maps: :math:`t_l`, before the activation, the same number; the larger
            map of a stage is average-pooled to the smaller. No gradient flows into
            them.
        margins: :math:`m_l \le 0`, ``[c]`` each, from :func:`ofd_margin`.
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding.

    Returns:
        The loss, a mean over examples and a sum over the elements, at least float32.
        Hence the small weight in the reference code, 1e-3.

    Raises:
        ValueError: If the numbers of stages or of channels differ, or a shape is wrong.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([1.0, 1.0, -2.0]).reshape(1, 1, 3, 1)
        >>> teacher = jnp.array([3.0, -2.0, -2.0]).reshape(1, 1, 3, 1)
        >>> print(losses.ofd([student], [teacher], [jnp.array([-0.5])]))
        6.25

    References:
        Heo et al., `A Comprehensive Overhaul of Feature Distillation
        <https://arxiv.org/abs/1904.01866>`_, ICCV 2019

    Notes:
        The reference code (megvii-research/mdistiller a08d46f) leaves the teacher's
        batch normalisation in training mode for this method only; here the caller runs
        the teacher, in evaluation mode.
    """
    pairs, weights = paired_stages(
        student_maps, teacher_maps, sample_weights, same_channels=True, tokens=True
    )
    terms = []
    for stage, ((s, t), margin) in enumerate(
        zip(pairs, per_channel("margins", margins, pairs), strict=True)
    ):
        m = jax.lax.stop_gradient(margin)
        active = (t > 0) | ((t > m) & (s > t))
        squares = jnp.where(active, jnp.square(s - t), 0)
        squares += jnp.where((t <= m) & (s > m), jnp.square(s - m), 0)
        per_sample = jnp.sum(squares, axis=(1, 2, 3)) / 2 ** (len(pairs) - stage - 1)
        terms.append(batch_mean(per_sample, weights))
    return jnp.sum(jnp.stack(terms))


def ofd_margin(scale: Rows, bias: Rows) -> Float[Array, " c"]:
    r"""Computes the expected value of a batch-normalised unit, given it is negative.

    .. math::
        m = \mathbb{E}[x \mid x < 0] = \beta - |\gamma| \,
            \frac{\varphi(\beta / \gamma)}{\Phi(-\beta / |\gamma|)}, \qquad
        x \sim \mathcal N(\beta, \gamma^2)

    Args:
        scale: :math:`\gamma` of the teacher's last batch normalisation before the
            activation, ``[c]``.
        bias: :math:`\beta` of the same, ``[c]``.

    Returns:
        The margins of :func:`ofd`, ``[c]``, at least float32. It is :math:`-3 |\gamma|`
        where the unit is hardly ever negative.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> scale, bias = jnp.array([1.0, 2.0, 1.0]), jnp.array([0.0, 1.0, 9.0])
        >>> print(losses.ofd_margin(scale, bias).tolist())
        [-0.797..., -1.282..., -3.0]

    References:
        Heo et al., A Comprehensive Overhaul of Feature Distillation, ICCV 2019

    Notes:
        The threshold for "hardly ever", one in a thousand, is the reference code's. A
        unit of scale 0 always equals its bias: the margin is that, or 0 if positive.
    """
    scale, bias = as_array("scale", scale), as_array("bias", bias)
    if scale.ndim != 1 or scale.shape != bias.shape:
        raise ValueError(
            "scale and bias must hold one number per channel, [c] each, got "
            f"{show(scale)} and {show(bias)}; take both from one normalisation."
        )
    spread, mean = jnp.abs(at_least_float32(scale)), at_least_float32(bias)
    varies = spread > 0
    ratio = mean / jnp.where(varies, spread, 1)
    # In logarithms: both factors underflow for a unit that is always negative.
    hazard = jnp.exp(normal.logpdf(ratio) - normal.logcdf(-ratio))
    margin = jnp.where(normal.cdf(-ratio) > 1e-3, mean - spread * hazard, -3 * spread)
    return jnp.where(varies, margin, jnp.minimum(mean, 0))
