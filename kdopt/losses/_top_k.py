"""Distillation from the likeliest tokens of a teacher, computed now or stored."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from kdopt._typing import Scalar
from kdopt.losses._divergence import (
    Softened,
    among,
    exp_remainder,
    kl_divergence,
    log_ratio,
    log_sum_exp,
    shifted,
    soften,
)
from kdopt.losses._inputs import cleared_pair, logit_rows, of_rows
from kdopt.losses._reduce import Denominator, batch_mean, clear_masked, divide_or_zero
from kdopt.losses._shapes import (
    Rows,
    as_array,
    check_classes,
    check_temperature,
    indices_of,
    show,
)
from kdopt.losses._sharding import gathered, take_entries

Tail = Literal["ghost", "renormalize", "truncate", "generalized"]


def top_k_kl(
    student_logits: Rows,
    teacher_logits: Rows,
    *,
    k: int | None = None,
    indices: Rows | None = None,
    log_normalizer: Rows | None = None,
    tail: Tail = "ghost",
    reverse: bool = False,
    temperature: ArrayLike = 1.0,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Computes the KL divergence on the teacher's likeliest classes.

    With :math:`I` these k classes, :math:`p, q` the student's and the teacher's
    probabilities at temperature :math:`\tau` among *all* classes, and
    :math:`p_r = 1 - \sum_I p` the rest, the loss is :math:`\frac{\tau^2}{B} \sum_b` of

    .. math::
        \text{ghost:} \quad & \sum_{I} q \log \frac qp + q_r \log \frac{q_r}{p_r} \\
        \text{renormalize:} \quad & \sum_{I} \hat q \log \frac{\hat q}{\hat p}, \qquad
            \hat q = \frac{q}{\sum_I q}, \; \hat p = \frac{p}{\sum_I p} \\
        \text{truncate:} \quad & \sum_{I} q \log \frac qp \\
        \text{generalized:} \quad & \sum_{I} \Big[ q \log \frac qp - q + p \Big]

    The other classes are merged into one (a ghost token), which gives a lower bound of
    the full divergence; or are ignored, whatever their mass; or are left out of its
    sum, which may then be negative; or count by their mass, which makes each term at
    least 0.

    Args:
        student_logits: ``[..., c]``.
        teacher_logits: ``[..., c]``; or, with ``indices``, the stored logits of k
            classes, ``[..., k]``. No gradient flows into them.
        k: How many classes to keep from a teacher's full logits, at least 1. Classes
            that tie with the k-th are kept too.
        indices: Which classes the stored logits belong to, ``[..., k]``. An index that
            is not a class, such as -1, is left out with its logit.
        log_normalizer: With ``indices``, :math:`\log \sum_c e^{z^t_c / \tau}` over all
            classes of the teacher, ``[...]``; 0 if log-probabilities at this
            temperature were stored. ``"renormalize"`` does not need it.
        tail: How to treat the other classes, see above.
        reverse: Whether to exchange :math:`p` and :math:`q`; not with ``"truncate"``,
            which would fall if the student's mass left the k classes.
        temperature: :math:`\tau > 0`.
        sample_weights: Weights of the examples, ``[...]``; 0 masks padding.
        denominator: What the sum is divided by; see :mod:`kdopt.losses`.

    Returns:
        The mean loss in nats, at least float32.

    Raises:
        ValueError: If a shape is wrong, not exactly one of ``k`` and ``indices`` is
            given, ``log_normalizer`` is missing, or ``tail`` is unknown.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[1.0, 0.0, -1.0, 0.5]])
        >>> teacher = jnp.array([[2.0, 1.0, 0.0, -1.0]])
        >>> print(f"{losses.top_k_kl(student, teacher, k=2):.4f}")
        0.1409
        >>> stored, indices = jax.lax.top_k(jax.nn.log_softmax(teacher), 2)
        >>> value = losses.top_k_kl(
        ...     student, stored, indices=indices, log_normalizer=0.0
        ... )
        >>> print(f"{value:.4f}")
        0.1409
    """
    _check_options(k, indices, tail, reverse)
    stored = indices is not None
    student, teacher, weights = (_stored_rows if stored else logit_rows)(
        student_logits, teacher_logits, sample_weights
    )
    tau = check_temperature(temperature, student, weights)
    if stored:
        pair = _of_stored(
            student / tau, teacher / tau, indices, log_normalizer, weights, tail
        )
        pair = _swapped(pair) if reverse else pair
    else:
        first, second = (teacher, student) if reverse else (student, teacher)
        pair = _coarse(soften(first, second, tau, tau), _likeliest(teacher, k))
    per_token = _divergence(pair, tail)
    return batch_mean(of_rows(jnp.square(tau)) * per_token, weights, denominator)


def _check_options(k, indices, tail, reverse):
    if tail not in ("ghost", "renormalize", "truncate", "generalized"):
        raise ValueError(
            "tail must be 'ghost', 'renormalize', 'truncate' or 'generalized', got "
            f"{tail!r}."
        )
    if reverse and tail == "truncate":
        raise ValueError(
            "tail='truncate' cannot be reversed: the loss would fall when the mass of "
            "the student leaves the k classes. Use 'ghost' or 'generalized'."
        )
    if (k is None) == (indices is None):
        raise ValueError(
            "Pass k for the full logits of a teacher, or indices for stored logits, "
            "not both."
        )
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")


def _stored_rows(student_logits, teacher_logits, sample_weights):
    """Prepares student ``[..., c]``, stored logits ``[..., k]`` and weights."""
    student = as_array("student_logits", student_logits)
    teacher = as_array("teacher_logits", teacher_logits)
    check_classes("student_logits", student)
    if teacher.shape[:-1] != student.shape[:-1]:
        raise ValueError(
            f"teacher_logits must hold k stored logits for each token, "
            f"{[*student.shape[:-1], 'k']}, got {show(teacher)}."
        )
    return cleared_pair(student, teacher, sample_weights, axes=student.ndim - 1)


def _of_stored(student, teacher, indices, log_normalizer, weights, tail):
    """Returns log-probabilities of the k classes, and of all others as one more."""
    indices = indices_of(as_array("indices", indices))
    if indices.shape != teacher.shape or not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ValueError(
            f"indices must be an integer for each stored logit, {show(teacher)}, got "
            f"{indices.dtype} {show(indices)}."
        )
    if log_normalizer is None and tail != "renormalize":
        raise ValueError(
            f"tail={tail!r} needs the mass of the classes that were not stored: pass "
            "log_normalizer, the logsumexp of the teacher's logits over temperature "
            "(0 with log-probabilities), or use 'renormalize'."
        )
    inside = (indices >= 0) & (indices < student.shape[-1])
    picked = take_entries(student, jnp.where(inside, indices, 0))
    log_p, log_q = (jnp.where(inside, x, -jnp.inf) for x in (picked, teacher))
    total = log_sum_exp(teacher)
    if log_normalizer is not None:
        total = as_array("log_normalizer", log_normalizer).astype(teacher.dtype)
        if total.shape not in ((), teacher.shape[:-1]):
            raise ValueError(
                f"log_normalizer must be a number for each token, "
                f"{list(teacher.shape[:-1])}, got {show(total)}."
            )
        total = jnp.broadcast_to(total, teacher.shape[:-1])
        total = clear_masked(total, weights)
    log_p = log_p - log_sum_exp(student)[..., None]
    log_q = log_q - jax.lax.stop_gradient(total)[..., None]
    log_p, log_q = (
        jnp.concatenate([x, _log_rest(log_sum_exp(x))[..., None]], axis=-1)
        for x in (log_p, log_q)
    )
    return Softened(log_p, log_q, _gap(log_p, log_q))


def _gap(student, teacher):
    """Subtracts logits, with the conventions of :func:`soften` for infinite ones."""
    none_s, none_t = jnp.isneginf(student), jnp.isneginf(teacher)
    s, t = jnp.where(none_s, 0, student), jnp.where(none_t, 0, teacher)
    gap = jnp.where(none_t, s, jnp.where(none_s, -jnp.inf, s - t))
    return jnp.where(none_s & none_t, 0, gap)


def _swapped(pair):
    """Exchanges the roles of both networks."""
    return Softened(pair.teacher, pair.student, _gap(pair.teacher, pair.student))


def _log_rest(log_mass):
    """Computes the log of one minus a mass, taken to be at least a rounding below 1."""
    eps = float(jnp.finfo(log_mass.dtype).eps)
    x = jnp.minimum(log_mass, -eps)
    small = x > -0.6931
    near, far = jnp.where(small, x, -1), jnp.where(small, -1, x)
    return jnp.where(small, jnp.log(-jnp.expm1(near)), jnp.log1p(-jnp.exp(far)))


def _likeliest(teacher, k):
    """Marks the k largest logits of each row, and those that tie with the last."""
    greatest, _ = jax.lax.top_k(gathered(teacher, axis=-1), min(k, teacher.shape[-1]))
    return teacher >= greatest[..., -1:]


def _coarse(pair, kept):
    """Merges all classes that are not kept into one more."""
    rest = ~kept
    of_rest = kl_divergence(shifted(among(pair, rest)))
    near = of_rest < 1
    student, teacher = (
        log_sum_exp(jnp.where(rest, x, -jnp.inf)) for x in (pair.student, pair.teacher)
    )
    q = jnp.where(rest, jnp.exp(pair.teacher), 0)
    known = rest & near[..., None] & ~jnp.isneginf(pair.student)
    mean = jnp.sum(q * jnp.where(known, pair.gap, 0), axis=-1)
    mean = divide_or_zero(mean, jnp.sum(q, axis=-1))
    plain = _gap(student, teacher)
    # The rest's gap is the logarithm of its mean e^d: its mean d and the divergence.
    finite = near & (jnp.sum(q, axis=-1) > 0) & jnp.isfinite(student)
    gap = jnp.where(finite, mean + jnp.where(near, of_rest, 0), plain)
    student, teacher, gap = (
        jnp.concatenate(
            [gathered(jnp.where(kept, x, fill), axis=-1), of_others[..., None]], axis=-1
        )
        for x, fill, of_others in (
            (pair.student, -jnp.inf, student),
            (pair.teacher, -jnp.inf, teacher),
            (pair.gap, 0, gap),
        )
    )
    return Softened(student, teacher, gap)


def _divergence(pair, tail):
    """Computes the divergence of a comparison whose last class is all the others."""
    if tail == "ghost":
        return kl_divergence(pair)
    if tail == "renormalize":
        student, teacher, gap = (x[..., :-1] for x in pair)
        everything = jnp.ones_like(student, bool)
        return kl_divergence(
            shifted(among(Softened(student, teacher, gap), everything))
        )
    ratio = log_ratio(pair)[..., :-1]
    p, q = (jax.nn.softmax(x)[..., :-1] for x in (pair.student, pair.teacher))
    known = q > 0
    ratio = jnp.where(known, ratio, 0)
    if tail == "truncate":
        return jnp.sum(jnp.where(known, -q * ratio, 0), axis=-1)
    near = known & (jnp.abs(ratio) < 0.5)
    close = q * exp_remainder(jnp.where(near, ratio, 0))
    return jnp.sum(jnp.where(near, close, p - q - q * ratio), axis=-1)
