"""Losses on the logits of one batch."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kdopt._dtypes import at_least_float32
from kdopt._typing import Scalar
from kdopt.losses._labels import are_soft, target_mask
from kdopt.losses._divergence import kl_divergence, split_target
from kdopt.losses._reduce import batch_mean


def cross_entropy(
    logits: Float[Array, "b c"],
    labels: Int[Array, " b"] | Float[Array, "b c"],
    *,
    sample_weights: Float[Array, " b"] | None = None,
) -> Scalar:
    r"""Cross-entropy with hard or soft labels, the usual task loss.

    .. math:: L = -\frac1B \sum_b \sum_c y_{bc} \log \mathrm{softmax}(z_b)_c

    Args:
        logits: Student logits :math:`z`, ``[b, c]``.
        labels: Class indices ``[b]``, or distributions ``[b, c]`` (mixup, cutmix,
            smoothing).
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding out.

    Returns:
        The mean loss in nats, at least float32.

    Raises:
        ValueError: If the labels are neither.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> logits = jnp.array([[2.0, 0.0], [0.0, 1.0]])
        >>> print(f"{losses.cross_entropy(logits, jnp.array([0, 0])):.4f}")
        0.7201
    """
    log_probs = jax.nn.log_softmax(at_least_float32(logits))
    if are_soft(labels, logits.shape[-1]):
        # A class of probability 0 adds 0 even where its log-probability is -inf.
        targets = at_least_float32(labels)
        per_sample = -jnp.sum(jnp.where(targets > 0, targets * log_probs, 0), axis=-1)
    else:
        per_sample = -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
    return batch_mean(per_sample, sample_weights)


def kd(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    *,
    temperature: float | jax.Array = 4.0,
    sample_weights: Float[Array, " b"] | None = None,
) -> Scalar:
    r"""Knowledge distillation: softened KL divergence from the teacher.

    .. math::
        L = \frac{\tau^2}{B} \sum_b
            \mathrm{KL}\big(\mathrm{softmax}(z^t_b/\tau) \,\|\,
                            \mathrm{softmax}(z^s_b/\tau)\big)

    The factor :math:`\tau^2` keeps the size of the gradient when :math:`\tau` grows.

    Args:
        student_logits: :math:`z^s`, ``[b, c]``.
        teacher_logits: :math:`z^t`, ``[b, c]``; no gradient flows into them.
        temperature: :math:`\tau > 0`; 4 is the CIFAR-100 setting, 1 the ImageNet one.
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding out.

    Returns:
        The mean loss in nats, at least float32.

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
    return soft_distance(
        student_logits,
        teacher_logits,
        kind="kl",
        tau_student=temperature,
        tau_teacher=temperature,
        sample_weights=sample_weights,
    )


def soft_distance(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    *,
    kind: Literal["ce", "kl", "mse"] = "ce",
    tau_student: float | jax.Array = 1.0,
    tau_teacher: float | jax.Array = 1.0,
    teacher_gradient: bool = False,
    sample_weights: Float[Array, " b"] | None = None,
) -> Scalar:
    r"""Distance between student and teacher with untied temperatures.

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
    entropy of the teacher. A method that looks at loss values (:func:`kdopt.dto_kd`)
    tells them apart.

    Args:
        student_logits: :math:`z^s`, ``[b, c]``.
        teacher_logits: :math:`z^t`, ``[b, c]``; no gradient flows into them, unless
            asked.
        kind: ``"ce"`` and ``"kl"`` compare probabilities, ``"mse"`` compares logits.
        tau_student: :math:`\tau_s > 0`.
        tau_teacher: :math:`\tau_t > 0`.
        teacher_gradient: Whether gradients flow into the teacher's logits, for a
            teacher that is trained to be easy to follow.
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding out.

    Returns:
        The mean loss, at least float32.

    Raises:
        ValueError: If ``kind`` is not one of the three.

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
    student = at_least_float32(student_logits) / tau_student
    teacher = at_least_float32(teacher_logits)
    if not teacher_gradient:
        teacher = jax.lax.stop_gradient(teacher)
    teacher = teacher / tau_teacher
    if kind == "mse":
        per_sample = jnp.mean(jnp.square(student - teacher), axis=-1)
    elif kind in ("ce", "kl"):
        log_p, log_q = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
        gap = -log_p if kind == "ce" else log_q - log_p
        q = jnp.exp(log_q)
        per_sample = jnp.sum(jnp.where(q > 0, q * gap, 0), axis=-1)
    else:
        raise ValueError(f"kind must be 'ce', 'kl' or 'mse', got {kind!r}.")
    return tau_student * tau_teacher * batch_mean(per_sample, sample_weights)


def dkd(
    student_logits: Float[Array, "b c"],
    teacher_logits: Float[Array, "b c"],
    labels: Int[Array, " b"],
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float | jax.Array = 4.0,
    sample_weights: Float[Array, " b"] | None = None,
) -> Scalar:
    r"""Decoupled distillation: target class and other classes weighted apart.

    .. math::
        L = \frac{\tau^2}{B} \sum_b \Big[
            \alpha \, \mathrm{KL}\big((q_y, 1 - q_y) \,\|\, (p_y, 1 - p_y)\big)
            + \beta \, \mathrm{KL}\big(\hat q \,\|\, \hat p\big) \Big]

    with :math:`p, q` the student's and the teacher's probabilities at temperature
    :math:`\tau`, and :math:`\hat p, \hat q` the same renormalised over the classes
    other than :math:`y`. Plain KD is the case :math:`\alpha = 1`,
    :math:`\beta = 1 - q_y`.

    Args:
        student_logits: ``[b, c]``, at least two classes.
        teacher_logits: ``[b, c]``; no gradient flows into them.
        labels: Class indices :math:`y`, ``[b]``.
        alpha: Weight of the target-class part (TCKD).
        beta: Weight of the part over the other classes (NCKD); the paper uses 8 for
            most CIFAR-100 pairs, 6 for VGG and WRN, 2 for ResNet-56 to ResNet-20.
        temperature: :math:`\tau > 0`.
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding out.

    Returns:
        The mean loss in nats, at least float32.

    Raises:
        ValueError: If the labels are distributions; says what to pass instead.

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
    student = at_least_float32(student_logits) / temperature
    teacher = jax.lax.stop_gradient(at_least_float32(teacher_logits)) / temperature
    is_target = target_mask(labels, student.shape[-1])
    target_s, other_s = split_target(student, is_target)
    target_t, other_t = split_target(teacher, is_target)
    tckd = kl_divergence(target_t, target_s)
    nckd = kl_divergence(other_t, other_s)
    return temperature**2 * batch_mean(alpha * tckd + beta * nckd, sample_weights)
