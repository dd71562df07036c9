"""Multi-level logit distillation: over instances, the batch and classes."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from kdopt._typing import Scalar
from kdopt.losses._divergence import possible, soften
from kdopt.losses._inputs import folded_rows
from kdopt.losses._logits import kd
from kdopt.losses._reduce import Denominator, divide_or_zero, pair_sum, row_weights
from kdopt.losses._shapes import Rows, as_sequence, check_temperature
from kdopt.losses._sharding import einsum


def kd_multi(
    student_logits: Rows,
    teacher_logits: Rows,
    *,
    temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Sums the distillation losses at several temperatures.

    .. math:: L = \sum_\tau L_{kd}(\tau)

    with :math:`L_{kd}` of :func:`kd`: low temperatures compare the likely classes,
    high ones all of them.

    Args:
        student_logits: ``[..., c]``.
        teacher_logits: ``[..., c]``; no gradient flows into them.
        temperatures: The values of :math:`\tau`.
        sample_weights: Weights of the examples, ``[...]``; 0 masks padding.
        denominator: What the sum is divided by; see :mod:`kdopt.losses`.

    Returns:
        The loss in nats, at least float32.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

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
    if not temperatures:
        raise ValueError("temperatures must hold at least one, got none.")
    terms = [
        kd(
            student_logits,
            teacher_logits,
            temperature=tau,
            sample_weights=sample_weights,
            denominator=denominator,
        )
        for tau in temperatures
    ]
    return jnp.sum(jnp.stack(terms))


def batch_correlation(
    student_logits: Rows,
    teacher_logits: Rows,
    *,
    temperature: ArrayLike = 4.0,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes the distance between Gram matrices of the examples' predictions.

    .. math:: L = \frac1B \lVert P P^\top - Q Q^\top \rVert_F^2

    with :math:`P, Q` the ``[b, c]`` probabilities at temperature :math:`\tau`.

    Args:
        student_logits: ``[..., c]``; every position is an example.
        teacher_logits: ``[..., c]``; no gradient flows into them.
        temperature: :math:`\tau > 0`.
        sample_weights: How often each example counts, ``[...]``; 0 masks padding.

    Returns:
        The loss, at least float32.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

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
    p, q, counts, _ = _probabilities(
        student_logits, teacher_logits, temperature, sample_weights
    )
    gap = einsum("ic,jc->ij", p, p) - einsum("ic,jc->ij", q, q)
    return divide_or_zero(pair_sum(jnp.square(gap), counts), jnp.sum(counts))


def class_correlation(
    student_logits: Rows,
    teacher_logits: Rows,
    *,
    temperature: ArrayLike = 4.0,
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes the distance between Gram matrices of the classes' predictions.

    .. math:: L = \frac1C \lVert P^\top P - Q^\top Q \rVert_F^2

    with :math:`P, Q` the ``[b, c]`` probabilities at temperature :math:`\tau`. It grows
    with the square of the batch size.

    Args:
        student_logits: ``[..., c]``; every position is an example.
        teacher_logits: ``[..., c]``; no gradient flows into them.
        temperature: :math:`\tau > 0`.
        sample_weights: How often each example counts, ``[...]``; 0 masks padding.

    Returns:
        The loss, at least float32.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

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
    p, q, counts, is_class = _probabilities(
        student_logits, teacher_logits, temperature, sample_weights
    )
    weighted_p, weighted_q = counts[:, None] * p, counts[:, None] * q
    gap = einsum("bi,bj->ij", p, weighted_p) - einsum("bi,bj->ij", q, weighted_q)
    num_classes = jnp.sum(jnp.any(is_class, axis=0), dtype=p.dtype)
    return divide_or_zero(jnp.sum(jnp.square(gap)), num_classes)


def mlkd(
    student_views: Iterable[Rows],
    teacher_views: Iterable[Rows],
    *,
    temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
    sample_weights: Rows | None = None,
) -> Scalar:
    r"""Computes multi-level logit distillation over augmented views of one batch.

    .. math::
        L = \sum_\tau \Big[ \sum_v L_{kd}(z^{s,v}, z^{t,v}; \tau)
            + L_{batch}(z^{s,1}, z^{t,1}; \tau)
            + L_{class}(z^{s,1}, z^{t,1}; \tau) \Big]

    Every view is distilled example by example (:func:`kd_multi`); the relations
    (:func:`batch_correlation`, :func:`class_correlation`) are taken on the first.

    Args:
        student_views: Logits ``[..., c]`` of each view, the weakly augmented one first.
        teacher_views: The teacher's logits of the same views, in the same order; no
            gradient flows into them.
        temperatures: The values of :math:`\tau`.
        sample_weights: How often each example counts, ``[...]``; 0 masks padding.

    Returns:
        The loss, at least float32.

    Raises:
        ValueError: If the numbers of views differ or are 0, or a shape is wrong.

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
        classes) where the teacher is more confident than the median; here all are kept.
        A copy of it (sunshangquan/logit-standardization-KD f6e5aa5) computes two of the
        five terms of the strong view on the weak one; here each view has all five.
    """
    student_views, teacher_views = (
        as_sequence(name, views)
        for name, views in (
            ("student_views", student_views),
            ("teacher_views", teacher_views),
        )
    )
    if len(student_views) != len(teacher_views) or not student_views:
        raise ValueError(
            "student_views and teacher_views must hold the same number of views, at "
            f"least one, got {len(student_views)} and {len(teacher_views)}; pass one "
            "array of logits per view."
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
    """Returns both networks' probabilities, 0 in masked rows; row counts; classes."""
    student, teacher, weights = folded_rows(
        student_logits, teacher_logits, sample_weights
    )
    tau = check_temperature(temperature, student, weights)
    pair = soften(student, teacher, tau, tau)
    counts = row_weights(student, weights)
    is_counted = counts[:, None] > 0
    p, q = (
        jnp.where(is_counted, jax.nn.softmax(x), 0)
        for x in (pair.student, pair.teacher)
    )
    return p, q, counts, possible(student, teacher) & is_counted
