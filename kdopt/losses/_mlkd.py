"""Multi-level logit distillation: instances, batch and classes."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdopt._dtypes import at_least_float32
from kdopt._typing import Scalar
from kdopt.losses._logits import kd
from kdopt.losses._reduce import clear_masked, divide_or_zero, row_weights


def kd_multi(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    *,
    temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
    sample_weights: Float[Array, " b"] | None = None,
) -> Scalar:
    r"""Sum of the distillation losses at several temperatures.

    .. math:: L = \sum_\tau L_{kd}(\tau)

    with :math:`L_{kd}` of :func:`kd`: low temperatures compare the likely classes,
    high ones all of them.

    Args:
        student_logits: ``[b, c]``.
        teacher_logits: ``[b, c]``; no gradient flows into them.
        temperatures: The values of :math:`\tau`.
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding out.

    Returns:
        The loss in nats, at least float32.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student, teacher = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 2.0]])
        >>> print(f"{losses.kd_multi(student, teacher):.4f}")
        9.6923

    References:
        Jin, Wang and Lin, `Multi-Level Logit Distillation
        <https://openaccess.thecvf.com/content/CVPR2023/html/Jin_Multi-Level_Logit_Distillation_CVPR_2023_paper.html>`_,
        CVPR 2023
    """
    terms = [
        kd(
            student_logits,
            teacher_logits,
            temperature=tau,
            sample_weights=sample_weights,
        )
        for tau in temperatures
    ]
    return jnp.sum(jnp.stack(terms))


def batch_correlation(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    *,
    temperature: float | jax.Array = 4.0,
    sample_weights: Float[Array, " b"] | None = None,
) -> Scalar:
    r"""Distance between the Gram matrices of the examples' predictions.

    .. math:: L = \frac1B \lVert P P^\top - Q Q^\top \rVert_F^2

    with :math:`P, Q` the ``[b, c]`` probabilities at temperature :math:`\tau`.

    Args:
        student_logits: ``[b, c]``.
        teacher_logits: ``[b, c]``; no gradient flows into them.
        temperature: :math:`\tau > 0`.
        sample_weights: How often each example counts, ``[b]``; 0 masks padding out.

    Returns:
        The loss, at least float32.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[9.0, 0.0], [0.0, 0.0]])
        >>> teacher = jnp.array([[9.0, 0.0], [0.0, 9.0]])
        >>> print(f"{losses.batch_correlation(student, teacher, temperature=1.0):.4f}")
        0.3746

    References:
        Jin, Wang and Lin, Multi-Level Logit Distillation, CVPR 2023
    """
    p, q = _probabilities(student_logits, teacher_logits, temperature, sample_weights)
    counts = row_weights(p, sample_weights)
    squares = jnp.square(p @ p.T - q @ q.T)
    return divide_or_zero(counts @ squares @ counts, jnp.sum(counts))


def class_correlation(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    *,
    temperature: float | jax.Array = 4.0,
    sample_weights: Float[Array, " b"] | None = None,
) -> Scalar:
    r"""Distance between the Gram matrices of the classes' predictions.

    .. math:: L = \frac1C \lVert P^\top P - Q^\top Q \rVert_F^2

    with :math:`P, Q` the ``[b, c]`` probabilities at temperature :math:`\tau`. It
    grows with the square of the batch.

    Args:
        student_logits: ``[b, c]``.
        teacher_logits: ``[b, c]``; no gradient flows into them.
        temperature: :math:`\tau > 0`.
        sample_weights: How often each example counts, ``[b]``; 0 masks padding out.

    Returns:
        The loss, at least float32.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[9.0, 0.0], [0.0, 0.0]])
        >>> teacher = jnp.array([[9.0, 0.0], [0.0, 9.0]])
        >>> print(f"{losses.class_correlation(student, teacher, temperature=1.0):.4f}")
        0.3748

    References:
        Jin, Wang and Lin, Multi-Level Logit Distillation, CVPR 2023
    """
    p, q = _probabilities(student_logits, teacher_logits, temperature, sample_weights)
    counts = row_weights(p, sample_weights)[:, None]
    gap = p.T @ (counts * p) - q.T @ (counts * q)
    return jnp.sum(jnp.square(gap)) / p.shape[-1]


def mlkd(
    student_views: Sequence[Float[Array, "b c"]],
    teacher_views: Sequence[Float[Array, "b c"]],
    *,
    temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
    sample_weights: Float[Array, " b"] | None = None,
) -> Scalar:
    r"""Multi-level logit distillation over augmented views of one batch.

    .. math::
        L = \sum_\tau \Big[ \sum_v L_{kd}(z^{s,v}, z^{t,v}; \tau)
            + L_{batch}(z^{s,1}, z^{t,1}; \tau)
            + L_{class}(z^{s,1}, z^{t,1}; \tau) \Big]

    Every view is distilled example by example (:func:`kd_multi`); the relations
    (:func:`batch_correlation`, :func:`class_correlation`) are taken on the first.

    Args:
        student_views: Logits ``[b, c]`` of each view, the weakly augmented one first.
        teacher_views: The teacher's logits of the same views, in the same order; no
            gradient flows into them.
        temperatures: The values of :math:`\tau`.
        sample_weights: How often each example counts, ``[b]``; 0 masks padding out.

    Returns:
        The loss, at least float32.

    Raises:
        ValueError: If the numbers of views differ or are 0.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> weak, strong = jnp.array([[2.0, 0.0]]), jnp.array([[1.0, 0.0]])
        >>> print(f"{losses.mlkd((weak, strong), (-weak, -strong)):.4f}")
        12.6153

    References:
        Jin, Wang and Lin, `Multi-Level Logit Distillation
        <https://openaccess.thecvf.com/content/CVPR2023/html/Jin_Multi-Level_Logit_Distillation_CVPR_2023_paper.html>`_,
        CVPR 2023

    Notes:
        The released code drops the terms of the weak view for the examples (and the
        classes) of which the teacher is surer than the median; here all are kept.
        A copy of it (sunshangquan/logit-standardization-KD f6e5aa5) takes two of the
        five terms of the strong view on the weak one; here each view has all five.
    """
    if len(student_views) != len(teacher_views) or not student_views:
        raise ValueError(
            "student_views and teacher_views must hold equally many views, at least "
            f"one, got {len(student_views)} and {len(teacher_views)}."
        )
    first = student_views[0], teacher_views[0]
    terms = [
        kd_multi(ours, theirs, temperatures=temperatures, sample_weights=sample_weights)
        for ours, theirs in zip(student_views, teacher_views, strict=True)
    ]
    for tau in temperatures:
        for correlation in (batch_correlation, class_correlation):
            terms.append(
                correlation(*first, temperature=tau, sample_weights=sample_weights)
            )
    return jnp.sum(jnp.stack(terms))


def _probabilities(student_logits, teacher_logits, temperature, sample_weights):
    p = jax.nn.softmax(at_least_float32(student_logits) / temperature)
    q = jax.nn.softmax(at_least_float32(teacher_logits) / temperature)
    return (
        clear_masked(p, sample_weights),
        clear_masked(jax.lax.stop_gradient(q), sample_weights),
    )
