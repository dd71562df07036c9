"""DeepKD: three streams of knowledge, each for its own momentum."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from kdopt._typing import Scalar
from kdopt.losses._divergence import (
    among,
    bernoulli_kl,
    kl_divergence,
    shifted,
    soften,
    target_against_rest,
)
from kdopt.losses._inputs import labelled_rows, logit_rows, of_rows
from kdopt.losses._labels import target_mask
from kdopt.losses._logits import cross_entropy
from kdopt.losses._reduce import Denominator, batch_mean
from kdopt.losses._shapes import Rows, check_temperature
from kdopt.losses._sharding import gathered


def deepkd(
    student_logits: Rows,
    teacher_logits: Rows,
    labels: Rows,
    *,
    temperature: ArrayLike = 4.0,
    top_k: int | Int[Array, ""] | None = None,
    decoupled: bool = False,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> tuple[Scalar, Scalar, Scalar]:
    r"""Computes task, target-class and non-target-class losses, to balance as three.

    .. math::
        L_{task} &= -\frac1B \sum_b \log \mathrm{softmax}(z^s_b)_y \\
        L_{tcg} &= \frac{\tau^2}{B} \sum_b
            \mathrm{KL}\big((q_y, 1 - q_y) \,\|\, (p_y, 1 - p_y)\big) \\
        L_{ncg} &= \frac{\tau^2}{B} \sum_b (1 - q_y) \,
            \mathrm{KL}\big(\hat q \,\|\, \hat p\big)

    with :math:`p, q` the student's and the teacher's probabilities at temperature
    :math:`\tau`, and :math:`\hat p, \hat q` the same renormalised over the teacher's
    ``top_k`` likeliest classes other than :math:`y`. Without the mask
    :math:`L_{tcg} + L_{ncg}` is :func:`kd`.

    Args:
        student_logits: :math:`z^s`, ``[..., c]``, at least two classes.
        teacher_logits: ``[..., c]``; no gradient flows into them.
        labels: Class indices :math:`y`, ``[...]``. An index that is not a class leaves
            its example out.
        temperature: :math:`\tau > 0`.
        top_k: Number of non-target classes kept, at least 1, from :func:`deepkd_top_k`;
            may be traced. None keeps all.
        decoupled: Whether to omit the factor :math:`1 - q_y`, as with :func:`dkd`.
        sample_weights: Weights of the examples, ``[...]``; 0 masks padding.
        denominator: What the sum is divided by; see :mod:`kdopt.losses`.

    Returns:
        The losses (task, target, non-target) in nats, at least float32, unweighted.

    Raises:
        ValueError: If a shape is wrong, or the labels are distributions; the message
            says what to pass instead.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[2.0, 0.0, 1.0]])
        >>> teacher = jnp.array([[0.0, 2.0, 1.0]])
        >>> parts = losses.deepkd(student, teacher, jnp.array([0]))
        >>> print(" ".join(f"{part:.4f}" for part in parts))
        0.4076 0.9487 0.3709

    References:
        Huang et al., `DeepKD: A Deeply Decoupled and Denoised Knowledge Distillation
        Trainer <https://arxiv.org/abs/2505.15133>`_, NeurIPS 2025

    Notes:
        The released code (haiduo/DeepKD afb5964) differs in four places. It takes the
        ``top_k`` likeliest of all classes and then drops the target, so that one class
        fewer is kept when the target is among them. It multiplies the mean of
        :math:`1 - q_y` over the batch by the mean of the divergences; here the mean is
        taken of the products, otherwise the parts would not sum to :func:`kd`. It masks
        by subtracting 1000 from the scaled logits, where here masked classes are left
        out of the sums. And its plain variant passes the number of classes under a
        misspelled name, so that nothing is masked.
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
    of_rest = kl_divergence(among(pair, ~is_target))
    target = target_against_rest(pair, is_target, of_rest)
    tcg, ncg = bernoulli_kl(*target), of_rest
    if top_k is not None:
        kept = ~is_target & _likeliest(pair.teacher, ~is_target, top_k)
        ncg = kl_divergence(shifted(among(pair, kept)))
    if not decoupled:
        ncg *= jax.nn.sigmoid(-target.teacher)
    scale = of_rows(jnp.square(tau))
    return (
        cross_entropy(student, labels, sample_weights=weights, denominator=denominator),
        batch_mean(scale * tcg, weights, denominator),
        batch_mean(scale * ncg, weights, denominator),
    )


def _likeliest(logits, where, top_k):
    """Marks the ``top_k`` largest logits of each row, at least one, in ``where``."""
    others = gathered(jnp.where(where, logits, -jnp.inf), axis=-1)
    rank = jnp.argsort(jnp.argsort(-others, axis=-1), axis=-1)
    return rank < jnp.maximum(top_k, 1)


def deepkd_top_k(
    progress: float | Float[Array, ""],
    *,
    num_classes: int,
    start: float = 0.05,
    plateau: float = 0.5,
    phases: tuple[float, float] = (1 / 3, 2 / 3),
) -> Int[Array, ""]:
    r"""Computes the number of non-target classes to distil, growing in three phases.

    .. math::
        k(u) = \mathrm{round}\big(C \cdot \mathrm{interp}(u;\;
            (0, f_0), (u_1, f), (u_2, f), (1, 1))\big)

    It rises linearly from :math:`f_0 C` to :math:`f C`, stays there, and rises to all.

    Args:
        progress: :math:`u`, the fraction of training completed, in [0, 1].
        num_classes: :math:`C`.
        start: :math:`f_0`; 0.05 in the paper.
        plateau: :math:`f`, the fraction of the classes in the middle phase; the paper
            tunes it for each data set.
        phases: :math:`(u_1, u_2)`, where the middle phase begins and ends.

    Returns:
        :math:`k`, at least 1, int32.

    Raises:
        ValueError: If the fractions or the phases do not increase within [0, 1].

    Examples:
        >>> from kdopt import losses
        >>> for progress in (0.0, 0.5, 1.0):
        ...     print(losses.deepkd_top_k(progress, num_classes=100))
        5
        50
        100

    References:
        Huang et al., DeepKD, NeurIPS 2025

    Notes:
        The released code contains no schedule. The plateau and the ends of the phases
        are our choice; ``plateau=0.525, phases=(0.5, 0.5)`` is linear growth
        throughout.
    """
    if not 0 <= phases[0] <= phases[1] <= 1:
        raise ValueError(f"phases must increase within [0, 1], got {phases}.")
    if not 0 < start <= plateau <= 1:
        raise ValueError(
            f"0 < start <= plateau <= 1 must hold, got {start} and {plateau}."
        )
    times = jnp.array([0.0, *phases, 1.0])
    fractions = jnp.array([start, plateau, plateau, 1.0])
    fraction = jnp.interp(jnp.asarray(progress, jnp.float32), times, fractions)
    return jnp.maximum(jnp.round(num_classes * fraction), 1).astype(jnp.int32)
