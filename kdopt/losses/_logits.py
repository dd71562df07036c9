"""Losses on the logits of one batch."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from kdopt._dtypes import accumulator_dtype
from kdopt._typing import Scalar
from kdopt.losses._divergence import (
    among,
    bernoulli_kl,
    kl_divergence,
    possible,
    soften,
    target_against_rest,
)
from kdopt.losses._inputs import labelled_rows, logit_rows, of_rows
from kdopt.losses._labels import are_soft, target_mask
from kdopt.losses._reduce import Denominator, batch_mean
from kdopt.losses._shapes import (
    Rows,
    as_array,
    check_classes,
    check_temperature,
    check_weights,
)


def cross_entropy(
    logits: Rows,
    labels: Rows,
    *,
    ignore_label: int | None = None,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Computes the cross-entropy with hard or soft labels, the usual task loss.

    .. math:: L = -\frac1B \sum_b \sum_c y_{bc} \log \mathrm{softmax}(z_b)_c

    Args:
        logits: Student logits :math:`z`, ``[..., c]``.
        labels: Class indices ``[...]``, or distributions ``[..., c]`` (mixup, cutmix,
            smoothing). An index outside ``[0, c)``, such as -1 or -100, is not a class
            and leaves its example out.
        ignore_label: A class whose examples are also left out, such as the padding
            index of a vocabulary.
        sample_weights: Weights of the examples, ``[...]``; 0 masks padding.
        denominator: What the sum is divided by; see :mod:`kdopt.losses`.

    Returns:
        The mean loss in nats, at least float32.

    Raises:
        ValueError: If the labels are neither, or a shape is wrong.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> logits = jnp.array([[2.0, 0.0], [0.0, 1.0]])
        >>> print(f"{losses.cross_entropy(logits, jnp.array([0, 0])):.4f}")
        0.7201
    """
    logits = as_array("logits", logits)
    check_classes("logits", logits)
    logits = logits.astype(accumulator_dtype(logits))
    num_classes = logits.shape[-1]
    shape = logits.shape[:-1]
    weights = check_weights(sample_weights, shape, logits.dtype)
    labels, weights, logits = labelled_rows(
        labels, weights, num_classes, logits, soft=True, ignore_label=ignore_label
    )
    log_probs = jax.nn.log_softmax(logits)
    if are_soft(labels, num_classes, len(shape)):
        # A class of probability 0 adds 0 even where its log-probability is -inf.
        targets = labels.astype(logits.dtype)
        surprise = jnp.where(targets > 0, targets * log_probs, 0)
    else:
        surprise = jnp.where(target_mask(labels, num_classes), log_probs, 0)
    return batch_mean(-jnp.sum(surprise, axis=-1), weights, denominator)


def kd(
    student_logits: Rows,
    teacher_logits: Rows,
    *,
    temperature: ArrayLike = 4.0,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Computes the softened KL divergence from the teacher: knowledge distillation.

    .. math::
        L = \frac{\tau^2}{B} \sum_b
            \mathrm{KL}\big(\mathrm{softmax}(z^t_b/\tau) \,\|\,
                            \mathrm{softmax}(z^s_b/\tau)\big)

    The factor :math:`\tau^2` keeps the size of the gradient as :math:`\tau` grows.

    Args:
        student_logits: :math:`z^s`, ``[..., c]``.
        teacher_logits: :math:`z^t`, ``[..., c]``; no gradient flows into them.
        temperature: :math:`\tau > 0`; 4 is the CIFAR-100 setting, 1 the ImageNet one.
        sample_weights: Weights of the examples, ``[...]``; 0 masks padding.
        denominator: What the sum is divided by; see :mod:`kdopt.losses`.

    Returns:
        The mean loss in nats, at least float32.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student, teacher = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 2.0]])
        >>> print(f"{losses.kd(student, teacher, temperature=4.0):.4f}")
        1.9593

    References:
        Hinton, Vinyals and Dean, `Distilling the Knowledge in a Neural Network
        <https://arxiv.org/abs/1503.02531>`_, 2015, section 2
    """
    student, teacher, weights = logit_rows(
        student_logits, teacher_logits, sample_weights
    )
    tau = check_temperature(temperature, student, weights)
    per_sample = kl_divergence(soften(student, teacher, tau, tau))
    return batch_mean(of_rows(jnp.square(tau)) * per_sample, weights, denominator)


def soft_distance(
    student_logits: Rows,
    teacher_logits: Rows,
    *,
    kind: Literal["ce", "kl", "mse"] = "ce",
    tau_student: ArrayLike = 1.0,
    tau_teacher: ArrayLike = 1.0,
    teacher_gradient: bool = False,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Computes a distance between student and teacher with untied temperatures.

    .. math::
        L_{ce} &= -\frac{\tau_s \tau_t}{B} \sum_b \sum_c q_{bc} \log p_{bc}, \qquad
        p = \mathrm{softmax}(z^s/\tau_s), \quad q = \mathrm{softmax}(z^t/\tau_t) \\
        L_{kl} &= \frac{\tau_s \tau_t}{B} \sum_b \sum_c
                  q_{bc} \, (\log q_{bc} - \log p_{bc}) \\
        L_{mse} &= \frac{\tau_s \tau_t}{BC} \sum_b
                   \lVert z^s_b/\tau_s - z^t_b/\tau_t \rVert^2

    The scale convention: :math:`\tau_s \tau_t` is the usual :math:`\tau^2` when the
    temperatures are tied, and is 1 in the recommended setting of the reference
    (``ce`` with both at 1). Then
    :math:`\nabla_{z^s} L_{ce} = \nabla_{z^s} L_{kl} = \frac{\tau_t}{B} (p - q)`.

    ``ce`` and ``kl`` have equal gradients and different values: they differ by the
    entropy of the teacher. A method that uses loss values (:func:`kdopt.dto_kd`) treats
    them differently.

    Args:
        student_logits: :math:`z^s`, ``[..., c]``.
        teacher_logits: :math:`z^t`, ``[..., c]``; no gradient flows into them by
            default.
        kind: ``"ce"`` and ``"kl"`` compare probabilities, ``"mse"`` compares logits.
        tau_student: :math:`\tau_s > 0`.
        tau_teacher: :math:`\tau_t > 0`.
        teacher_gradient: Whether gradients flow into the teacher's logits, for a
            teacher that is trained to be easy to follow.
        sample_weights: Weights of the examples, ``[...]``; 0 masks padding.
        denominator: What the sum is divided by; see :mod:`kdopt.losses`.

    Returns:
        The mean loss, at least float32.

    Raises:
        ValueError: If ``kind`` is not one of the three, or a shape is wrong.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student, teacher = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 2.0]])
        >>> for kind in ("ce", "kl", "mse"):
        ...     print(f"{losses.soft_distance(student, teacher, kind=kind):.4f}")
        1.8885
        1.5232
        4.0000

    References:
        Sultan et al., `An Empirical Investigation into the Effect of Parameter Choices
        in Knowledge Distillation <https://arxiv.org/abs/2401.06356>`_, 2024
    """
    if kind not in ("ce", "kl", "mse"):
        raise ValueError(f"kind must be 'ce', 'kl' or 'mse', got {kind!r}.")
    student, teacher, weights = logit_rows(
        student_logits,
        teacher_logits,
        sample_weights,
        min_classes=1 if kind == "mse" else 2,
        teacher_gradient=teacher_gradient,
    )
    tau_s, tau_t = (
        check_temperature(tau, student, weights, name)
        for name, tau in (("tau_student", tau_student), ("tau_teacher", tau_teacher))
    )
    if kind == "mse":
        per_sample = _mean_square(student, teacher, tau_s, tau_t)
    else:
        pair = soften(student, teacher, tau_s, tau_t)
        per_sample = kl_divergence(pair)
        if kind == "ce":
            per_sample += _entropy(pair.teacher)
    scale = of_rows(tau_s) * of_rows(tau_t)
    return batch_mean(scale * per_sample, weights, denominator)


def _mean_square(student, teacher, tau_s, tau_t):
    """Computes the mean squared difference of scaled logits, over possible classes."""
    counted = possible(student, teacher)
    s, t = (jnp.where(counted, x, 0) for x in (student, teacher))
    # For close logits the difference is exact, their quotients are not.
    gap = (s - t) / tau_s + t * ((tau_t - tau_s) / (tau_s * tau_t))
    return jnp.mean(jnp.square(gap), axis=-1, where=counted)


def _entropy(logits):
    """Computes the entropy of a softmax whose largest logit is 0."""
    q = jnp.exp(logits)
    total = jnp.sum(q, axis=-1)
    return jnp.log(total) - jnp.sum(jnp.where(q > 0, q * logits, 0), axis=-1) / total


def dkd(
    student_logits: Rows,
    teacher_logits: Rows,
    labels: Rows,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: ArrayLike = 4.0,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Computes decoupled distillation: target and other classes weighted separately.

    .. math::
        L = \frac{\tau^2}{B} \sum_b \Big[
            \alpha \, \mathrm{KL}\big((q_y, 1 - q_y) \,\|\, (p_y, 1 - p_y)\big)
            + \beta \, \mathrm{KL}\big(\hat q \,\|\, \hat p\big) \Big]

    with :math:`p, q` the student's and the teacher's probabilities at temperature
    :math:`\tau`, and :math:`\hat p, \hat q` the same renormalised over the classes
    other than :math:`y`. Plain KD is the case :math:`\alpha = 1`,
    :math:`\beta = 1 - q_y`.

    Args:
        student_logits: ``[..., c]``, at least two classes.
        teacher_logits: ``[..., c]``; no gradient flows into them.
        labels: Class indices :math:`y`, ``[...]``. An index that is not a class leaves
            its example out.
        alpha: Weight of the target-class part (TCKD).
        beta: Weight of the part over the other classes (NCKD); the paper uses 8 for
            most CIFAR-100 pairs, 6 for VGG and WRN, 2 for ResNet-56 to ResNet-20.
        temperature: :math:`\tau > 0`.
        sample_weights: Weights of the examples, ``[...]``; 0 masks padding.
        denominator: What the sum is divided by; see :mod:`kdopt.losses`.

    Returns:
        The mean loss in nats, at least float32.

    Raises:
        ValueError: If a shape is wrong, or the labels are distributions; the message
            says what to pass instead.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[2.0, 0.0, 1.0]])
        >>> teacher = jnp.array([[0.0, 2.0, 1.0]])
        >>> print(f"{losses.dkd(student, teacher, jnp.array([0])):.4f}")
        4.9280

    References:
        Zhao et al., `Decoupled Knowledge Distillation
        <https://arxiv.org/abs/2203.08679>`_, CVPR 2022

    Notes:
        The reference code masks the target class by subtracting 1000 from its logit;
        here it is left out of the sums, so that logits of any size are handled.
    """
    student, teacher, weights = logit_rows(
        student_logits, teacher_logits, sample_weights
    )
    num_classes = student.shape[-1]
    labels, weights, student, teacher = labelled_rows(
        labels, weights, num_classes, student, teacher
    )
    tau = check_temperature(temperature, student, weights)
    is_target = target_mask(labels, num_classes)
    pair = soften(student, teacher, tau, tau, where=~is_target)
    nckd = kl_divergence(among(pair, ~is_target))
    tckd = bernoulli_kl(*target_against_rest(pair, is_target, nckd))
    per_sample = of_rows(jnp.square(tau)) * (alpha * tckd + beta * nckd)
    return batch_mean(per_sample, weights, denominator)
