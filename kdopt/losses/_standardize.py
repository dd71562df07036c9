"""Logit standardisation: only the shape of the logits is distilled."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from kdopt._dtypes import at_least_float32
from kdopt._typing import Scalar
from kdopt.losses._inputs import logit_rows
from kdopt.losses._logits import kd
from kdopt.losses._reduce import Denominator
from kdopt.losses._safe import centred, norm
from kdopt.losses._shapes import Rows, as_array, check_logits


def standardize_logits(
    logits: Rows, *, ddof: int = 1, eps: float = 1e-7
) -> Float[Array, "*b c"]:
    r"""Gives the logits of every example mean 0 and standard deviation 1.

    .. math:: \mathcal Z(z)_c = \frac{z_c - \bar z}{\sigma(z) + \epsilon}, \qquad
        \sigma(z)^2 = \frac{1}{C - d} \sum_c (z_c - \bar z)^2

    A student then need not copy the scale of its teacher, for which it may be too
    small. It works with any loss on logits: pass both networks' logits through it.

    Args:
        logits: ``[..., c]``.
        ddof: :math:`d`, subtracted from the number of classes; 1 as in the reference.
        eps: :math:`\epsilon`, added to the deviation.

    Returns:
        The standardised logits, ``[..., c]``, at least float32. A row of equal logits
        becomes zeros and gets no gradient.

    Raises:
        ValueError: If there are not more than ``ddof`` classes.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> print(losses.standardize_logits(jnp.array([[0.0, 2.0, 1.0]])).round(3))
        [[-1.  1.  0.]]

    References:
        Sun et al., `Logit Standardization in Knowledge Distillation
        <https://arxiv.org/abs/2403.01427>`_, CVPR 2024, Algorithm 1

    Notes:
        The paper also divides by the temperature; here the loss does that.
    """
    logits = as_array("logits", logits)
    check_logits("logits", logits)
    num_classes = logits.shape[-1]
    if num_classes <= ddof:
        raise ValueError(
            f"logits must have more than ddof = {ddof} classes, got {num_classes}."
        )
    logits = at_least_float32(logits)
    none = jnp.isneginf(logits)
    counted = (~none).astype(logits.dtype)
    gaps = centred(jnp.where(none, 0, logits), counted)
    size = jnp.maximum(jnp.sum(counted, axis=-1, keepdims=True) - ddof, 1)
    return jnp.where(none, -jnp.inf, gaps / (norm(gaps) / jnp.sqrt(size) + eps))


def kd_standardized(
    student_logits: Rows,
    teacher_logits: Rows,
    *,
    temperature: ArrayLike = 2.0,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Computes the distillation loss between standardised logits.

    .. math::
        L = \frac{\tau^2}{B} \sum_b \mathrm{KL}\big(
            \mathrm{softmax}(\mathcal Z(z^t_b)/\tau) \,\|\,
            \mathrm{softmax}(\mathcal Z(z^s_b)/\tau)\big)

    with :math:`\mathcal Z` of :func:`standardize_logits`.

    Args:
        student_logits: :math:`z^s`, ``[..., c]``.
        teacher_logits: :math:`z^t`, ``[..., c]``; no gradient flows into them.
        temperature: :math:`\tau > 0`, in units of the standard deviation of the logits;
            the paper uses 2 to 4, with a weight of 9, and 0.1 for the task.
        sample_weights: Weights of the examples, ``[...]``; 0 masks padding.
        denominator: What the sum is divided by; see :mod:`kdopt.losses`.

    Returns:
        The mean loss in nats, at least float32.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[2.0, 0.0, 1.0]])
        >>> teacher = jnp.array([[0.0, 2.0, 1.0]])
        >>> print(f"{losses.kd_standardized(student, teacher):.4f}")
        1.2806
        >>> print(f"{losses.kd_standardized(student, 3 * student + 1):.4f}")
        0.0000

    References:
        Sun et al., `Logit Standardization in Knowledge Distillation
        <https://arxiv.org/abs/2403.01427>`_, CVPR 2024
    """
    student, teacher, weights = logit_rows(
        student_logits, teacher_logits, sample_weights
    )
    return kd(
        standardize_logits(student),
        standardize_logits(teacher),
        temperature=temperature,
        sample_weights=weights,
        denominator=denominator,
    )
