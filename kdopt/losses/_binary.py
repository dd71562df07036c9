"""Multi-label losses: every class is a separate yes or no."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from kdopt._dtypes import accumulator_dtype
from kdopt._typing import Scalar
from kdopt.losses._divergence import bernoulli_kl
from kdopt.losses._inputs import logit_rows
from kdopt.losses._reduce import Denominator, batch_mean
from kdopt.losses._shapes import (
    Rows,
    as_array,
    check_classes,
    check_temperature,
    check_weights,
    indices_of,
    show,
)


def binary_cross_entropy(
    logits: Rows,
    labels: Rows,
    *,
    label_weights: Rows | None = None,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Computes the cross-entropy of each class separately, for multi-label data.

    .. math::
        L = -\frac{\sum_{bc} w_b v_{bc} \big[ y_{bc} \log \sigma(z_{bc})
            + (1 - y_{bc}) \log (1 - \sigma(z_{bc})) \big]}{\sum_{bc} w_b v_{bc}}

    It is a mean over examples and classes, like PyTorch's ``BCEWithLogitsLoss``;
    multiplied by the number of classes it is the sum over classes.

    Args:
        logits: Student logits :math:`z`, ``[..., c]``.
        labels: :math:`y` in [0, 1], hard or soft, ``[..., c]``. Labels outside by more
            than rounding are left out, and so is NaN.
        label_weights: :math:`v`, ``[..., c]``; 0 leaves out an unknown label.
        sample_weights: Weights :math:`w` of the examples, ``[...]``; 0 masks padding.
        denominator: What the sum over examples and classes is divided by; see
            :mod:`kdopt.losses`.

    Returns:
        The mean loss in nats, at least float32; 0 if nothing is labelled.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> logits = jnp.array([[2.0, 0.0, -1.0]])
        >>> labels = jnp.array([[1, 1, 0]])
        >>> print(f"{losses.binary_cross_entropy(logits, labels):.4f}")
        0.3778
        >>> known = jnp.array([[1, 0, 1]])
        >>> value = losses.binary_cross_entropy(logits, labels, label_weights=known)
        >>> print(f"{value:.4f}")
        0.2201
    """
    logits, labels = as_array("logits", logits), as_array("labels", labels)
    check_classes("logits", logits, min_classes=1)
    if labels.shape != logits.shape:
        advice = (
            f"; for class indices pass jax.nn.one_hot(labels, {logits.shape[-1]})"
            if labels.shape == logits.shape[:-1]
            else ""
        )
        raise ValueError(
            "labels must hold a number for every class of every example, "
            f"{show(logits)}, got {show(labels)}{advice}."
        )
    dtype = accumulator_dtype(logits)
    weights = _entry_weights(label_weights, sample_weights, logits, dtype)
    weights = jnp.ones_like(logits, dtype) if weights is None else weights
    weights = jnp.where(_in_unit_interval(labels), weights, 0)
    kept = weights > 0
    z = jnp.where(kept, logits.astype(dtype), 0)
    y = jnp.clip(jnp.where(kept, labels.astype(dtype), 0), 0, 1)
    # A certain label adds 0 for the answer it excludes, even at an infinite logit.
    yes = jnp.where(y > 0, y * jax.nn.softplus(-z), 0)
    no = jnp.where(y < 1, (1 - y) * jax.nn.softplus(z), 0)
    return batch_mean(yes + no, weights, denominator)


def binary_kd(
    student_logits: Rows,
    teacher_logits: Rows,
    *,
    temperature: ArrayLike = 1.0,
    label_weights: Rows | None = None,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Computes the distillation loss of each class separately, between sigmoids.

    .. math::
        L = \tau^2 \, \frac{\sum_{bc} w_b v_{bc} \, \mathrm{KL}\big(
            (q_{bc}, 1 - q_{bc}) \,\|\, (p_{bc}, 1 - p_{bc})\big)}
            {\sum_{bc} w_b v_{bc}}, \qquad
        p = \sigma(z^s / \tau), \quad q = \sigma(z^t / \tau)

    It is a mean over examples and classes, like :func:`binary_cross_entropy`. Its
    gradient is that of the cross-entropy with the teacher's probabilities as labels;
    its value is 0 where the networks agree.

    Args:
        student_logits: :math:`z^s`, ``[..., c]``.
        teacher_logits: :math:`z^t`, ``[..., c]``; no gradient flows into them.
        temperature: :math:`\tau > 0`.
        label_weights: :math:`v`, ``[..., c]``; 0 leaves a class out for an example.
        sample_weights: Weights :math:`w` of the examples, ``[...]``; 0 masks padding.
        denominator: What the sum over examples and classes is divided by; see
            :mod:`kdopt.losses`.

    Returns:
        The mean loss in nats, at least float32; never negative.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student, teacher = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 0.0]])
        >>> print(f"{losses.binary_kd(student, teacher):.4f}")
        0.2169

    References:
        Schmid, Koutini and Widmer, `Efficient Large-Scale Audio Tagging via
        Transformer-to-CNN Knowledge Distillation <https://arxiv.org/abs/2211.04772>`_,
        ICASSP 2023

    Notes:
        The reference code (fschmid56/EfficientAT 0cc9f62) takes the cross-entropy,
        which is larger by the entropy of the teacher, and divides only the teacher's
        logits by the temperature, which is also 1 by default there.
    """
    student, teacher, of_rows = logit_rows(
        student_logits, teacher_logits, sample_weights, min_classes=1
    )
    weights = _entry_weights(label_weights, sample_weights, student, student.dtype)
    if weights is not None:
        student, teacher = (jnp.where(weights > 0, x, 0) for x in (student, teacher))
    tau = check_temperature(temperature, student, of_rows)
    # Equal infinite logits agree.
    same = (student == teacher) & jnp.isinf(student)
    gap = jnp.where(same, 0, student) - jnp.where(same, 0, teacher)
    divergence = bernoulli_kl(*(_over(x, tau) for x in (student, teacher, gap)))
    return batch_mean(jnp.square(tau) * divergence, weights, denominator)


def _over(x, tau):
    """Divides by the temperature; infinite logits stay as they are."""
    infinite = jnp.isinf(x)
    return jnp.where(infinite, x, jnp.where(infinite, 0, x) / tau)


def _entry_weights(label_weights, sample_weights, logits, dtype):
    """Multiplies both weights, ``[..., c]``; None if there are none."""
    weights = check_weights(sample_weights, logits.shape[:-1], dtype)
    if weights is not None:
        weights = jnp.broadcast_to(weights[..., None], logits.shape)
    if label_weights is None:
        return weights
    of_labels = as_array("label_weights", label_weights)
    if of_labels.shape != logits.shape:
        raise ValueError(
            "label_weights must hold a weight for every class of every example, "
            f"{show(logits)}, got {show(of_labels)}; jnp.broadcast_to(weights, "
            f"{logits.shape}) repeats weights of classes."
        )
    of_labels = of_labels.astype(dtype)
    of_labels = jnp.where(of_labels < 0, 0, of_labels)
    return of_labels if weights is None else weights * of_labels


def _in_unit_interval(labels):
    """Marks the labels in [0, 1], up to the rounding of a mixture."""
    if not jnp.issubdtype(labels.dtype, jnp.floating):
        labels = indices_of(labels)
        return (labels >= 0) & (labels <= 1)
    slack = 8 * float(jnp.finfo(labels.dtype).eps)
    return (labels >= -slack) & (labels <= 1 + slack)
