r"""Divergences that stay accurate between networks that nearly agree.

The sum of :math:`q (\log q - \log p)` cancels when :math:`p` is near :math:`q`: its
terms are as large as the difference, but the divergence is as small as its square. With
the gap :math:`d` of the logits and :math:`u = d - \mathrm{E}_q d`,

.. math::
    \mathrm{KL}(q \,\|\, p) = \log \mathrm{E}_q e^u
        = \log\big(1 + \mathrm{E}_q [e^u - 1 - u]\big),

where no term is negative. All that is needed is the gap itself, which is why it is
taken from the logits before anything is rounded.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float

from kdopt.losses._reduce import divide_or_zero


class Softened(NamedTuple):
    """Logits of both networks over their temperatures, the largest of a row at 0.

    Attributes:
        student: Logits of the student, ``[..., c]``.
        teacher: Logits of the teacher, ``[..., c]``.
        gap: Student's minus teacher's, ``[..., c]``, without cancellation and up to a
            constant in each row.
    """

    student: Float[Array, "*b c"]
    teacher: Float[Array, "*b c"]
    gap: Float[Array, "*b c"]


def possible(student: jax.Array, teacher: jax.Array) -> Bool[Array, "*b c"]:
    """Marks the classes that are possible for either, with a logit above ``-inf``."""
    return ~(jnp.isneginf(student) & jnp.isneginf(teacher))


def soften(
    student: Float[Array, "*b c"],
    teacher: Float[Array, "*b c"],
    tau_student: Float[Array, "..."],
    tau_teacher: Float[Array, "..."],
    where: Bool[Array, "*b c"] | None = None,
) -> Softened:
    """Divides the logits by their temperatures, and takes the gap between them.

    Args:
        student: Logits; ``-inf`` for an impossible class.
        teacher: Logits.
        tau_student: Temperature of the student, ``[]`` or ``[..., 1]``.
        tau_teacher: Temperature of the teacher.
        where: The classes whose largest logits become 0; all by default. The rest is
            shifted with them.

    Returns:
        The softened logits. A class that is impossible for both has a gap of 0. One
        that is impossible only for the teacher has the student's gap to its top: it
        does not count but passes the gradient on.
    """
    none_s, none_t = jnp.isneginf(student), jnp.isneginf(teacher)
    top_s, top_t = _top(student, where), _top(teacher, where)
    # No infinities even in entries that are not selected: their slope would be NaN.
    s, t = jnp.where(none_s, top_s, student), jnp.where(none_t, top_t, teacher)
    # 0 before the division: XLA may multiply by the inverse, which is off by a rounding
    # of the logit.
    a = jnp.where(none_s, -jnp.inf, (s - top_s) / tau_student)
    b = jnp.where(none_t, -jnp.inf, (t - top_t) / tau_teacher)
    (gap, rest), (shift, rest_of_shift) = _difference(s, t), _difference(top_s, top_t)
    gap = ((gap - shift) + (rest - rest_of_shift)) / tau_student
    if tau_student is not tau_teacher:
        inverses = (tau_teacher - tau_student) / (tau_student * tau_teacher)
        gap += (t - top_t) * inverses
    gap = jnp.where(none_t, jnp.where(none_s, 0, a), jnp.where(none_s, -jnp.inf, gap))
    return Softened(a, b, gap)


def among(pair: Softened, where: Bool[Array, "*b c"]) -> Softened:
    """Restricts a comparison to some classes, which include the largest logits.

    Where all of them are impossible for the teacher, so that it has no probabilities,
    both networks get equal ones.
    """
    known = jnp.any(where & ~jnp.isneginf(pair.teacher), axis=-1, keepdims=True)
    student, teacher = (
        jnp.where(known, jnp.where(where, x, -jnp.inf), 0)
        for x in (pair.student, pair.teacher)
    )
    return Softened(student, teacher, jnp.where(known & where, pair.gap, 0))


def shifted(pair: Softened) -> Softened:
    """Shifts the largest logits to 0 after some have been removed."""
    student, teacher = (x - _top(x) for x in (pair.student, pair.teacher))
    return Softened(student, teacher, pair.gap)


def kl_divergence(pair: Softened) -> Float[Array, "*b"]:
    """Computes the KL divergence of the student from the teacher, row by row.

    Args:
        pair: Softened logits.

    Returns:
        The divergences, ``[...]``: not negative, and infinite where a class is
        impossible for the student but not for the teacher.
    """
    return _kl(*pair, -1)


def log_ratio(pair: Softened) -> Float[Array, "*b c"]:
    """Computes the log-ratio of the student's to the teacher's probability, per class.

    Args:
        pair: Softened logits.

    Returns:
        ``log p - log q``, ``[..., c]``, accurate to the last digits where the networks
        almost agree; 0 for a class that is impossible for both, infinite if for one.
    """
    none_s, none_t = jnp.isneginf(pair.student), jnp.isneginf(pair.teacher)
    divergence = kl_divergence(pair)[..., None]
    near = divergence < 1
    known = near & ~none_s & ~none_t
    gap = jnp.where(known, pair.gap, 0)
    mean = jnp.sum(jax.nn.softmax(pair.teacher) * gap, axis=-1, keepdims=True)
    careful = gap - mean - jnp.where(near, divergence, 0)
    log_p, log_q = (
        jnp.where(none, 0, x - log_sum_exp(x)[..., None])
        for none, x in ((none_s, pair.student), (none_t, pair.teacher))
    )
    plain = jnp.where(none_s, -jnp.inf, jnp.where(none_t, jnp.inf, log_p - log_q))
    return jnp.where(known, careful, jnp.where(none_s & none_t, 0, plain))


def log_sum_exp(logits: Float[Array, "*b c"]) -> Float[Array, "*b"]:
    """Computes log-sum-exp over classes; ``-inf``, with a finite slope, for none."""
    top = _top(logits)
    return _log(jnp.sum(jnp.exp(logits - top), axis=-1)) + jnp.squeeze(top, -1)


def bernoulli_kl(
    student: Float[Array, "..."], teacher: Float[Array, "..."], gap: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Computes the KL divergence between probabilities of yes and no, given as logits.

    Args:
        student: Logits of yes against no, of any shape.
        teacher: Logits of the teacher.
        gap: The student's minus the teacher's.

    Returns:
        The divergences, of the same shape.
    """
    # Where both are certain nothing counts; the answer of which the teacher is certain
    # is the reference from which the other gap is measured.
    gap = jnp.where((student == teacher) & jnp.isinf(student), 0, gap)
    yes = teacher > 0
    gaps = jnp.stack([jnp.where(yes, 0, gap), jnp.where(yes, -gap, 0)])
    return _kl(_yes_and_no(student), _yes_and_no(teacher), gaps, 0)


class Target(NamedTuple):
    """The target class against the rest: logits of yes against no, each ``[...]``."""

    student: Float[Array, "*b"]
    teacher: Float[Array, "*b"]
    gap: Float[Array, "*b"]


def target_against_rest(
    pair: Softened, is_target: Bool[Array, "*b c"], rest_kl: Float[Array, "*b"]
) -> Target:
    """Computes the log-odds of the target class, and their gap.

    Args:
        pair: Softened logits, the largest of the rest at 0.
        is_target: True at the one target class of each row.
        rest_kl: The divergence among the rest.

    Returns:
        The log-odds of the student and of the teacher.
    """
    student, teacher, gap = (
        jnp.sum(x, axis=-1, where=is_target)
        for x in (pair.student, pair.teacher, pair.gap)
    )
    p, q = (
        jnp.exp(jnp.where(is_target, -jnp.inf, x)) for x in (pair.student, pair.teacher)
    )
    sum_p, sum_q = jnp.sum(p, axis=-1), jnp.sum(q, axis=-1)
    rest_s, rest_t = _log(sum_p), _log(sum_q)
    # The rest's gap is the logarithm of its mean e^d: its mean d and the divergence.
    mean = divide_or_zero(jnp.sum(jnp.where(q > 0, q * pair.gap, 0), axis=-1), sum_q)
    rest_gap = jnp.where(sum_q > 0, mean + rest_kl, rest_s)
    return Target(student - rest_s, teacher - rest_t, gap - rest_gap)


def exp_remainder(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes ``exp(x) - 1 - x`` for ``|x| <= 1/2``, to the last digits."""
    order = 8 if x.dtype == jnp.float32 else 15
    series = jnp.ones_like(x)
    for k in range(order + 2, 2, -1):
        series = 1 + x * series * (1 / k)
    return jnp.square(x) / 2 * series


def _top(logits, where=None):
    """Returns the largest logit of each row, without gradient; 0 if all impossible."""
    if where is not None:
        logits = jnp.where(where, logits, -jnp.inf)
    top = jnp.max(logits, axis=-1, keepdims=True)
    return jax.lax.stop_gradient(jnp.where(jnp.isneginf(top), 0, top))


def _log(x):
    """Computes the logarithm, with a finite slope at 0."""
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), -jnp.inf)


def _difference(x, y):
    """Returns the difference and its exact rounding error."""
    difference = x - y
    taken = difference - x
    rest = (x - (difference - taken)) - (y + taken)
    return difference, jax.lax.stop_gradient(jnp.where(jnp.isfinite(rest), rest, 0))


def _yes_and_no(logits):
    """Returns the logits of both answers, the larger of them 0; ``[2, ...]``."""
    return jnp.stack([jnp.minimum(logits, 0), -jnp.maximum(logits, 0)])


def _terms(student, teacher, gap, axis):
    """Returns the divergence, both probabilities, and log p - log q where q > 0."""
    p, q = jnp.exp(student), jnp.exp(teacher)
    known = q > 0
    gap = jnp.where(known, gap, 0)

    def over_classes(x):
        return jnp.sum(x, axis, keepdims=True)

    sum_p, sum_q = over_classes(p), over_classes(q)
    # Accurate enough from 1 on, and never far off.
    plain = over_classes(jnp.where(known, q * (teacher - student), 0)) / sum_q
    plain += jnp.log(sum_p) - jnp.log(sum_q)
    u = gap - over_classes(q * gap) / sum_q
    p, q = p / sum_p, q / sum_q
    # q e^u is p e^KL, even where q is 0 and e^u infinite.
    far = p * jnp.exp(jnp.minimum(plain, 1)) - q - q * u
    near = known & (jnp.abs(u) < 0.5)
    excess = jnp.where(near, q * exp_remainder(jnp.where(near, u, 0)), far)
    value = jnp.where(plain < 1, jnp.log1p(over_classes(excess)), plain)
    return value, p, q, u - value


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _kl(student, teacher, gap, axis):
    return jnp.squeeze(_terms(student, teacher, gap, axis)[0], axis)


@functools.partial(_kl.defjvp, symbolic_zeros=True)
def _kl_jvp(axis, primals, tangents):
    """Differentiates by the gap, to p - q, and by the teacher, without cancellation.

    The student is the teacher plus the gap, so its tangent is contained in theirs.
    """
    student, teacher, gap = primals
    value, p, q, x = _terms(student, teacher, gap, axis)
    near = (q > 0) & (jnp.abs(x) < 0.5)
    x_near = jnp.where(near, x, 0)
    remainder = exp_remainder(x_near)
    _, teacher_dot, gap_dot = tangents
    tangent = jnp.zeros_like(jnp.squeeze(value, axis))
    if not isinstance(gap_dot, SymbolicZero):
        slope = jnp.where(near, q * (x_near + remainder), p - q)
        tangent += jnp.sum(slope * gap_dot, axis)
    if not isinstance(teacher_dot, SymbolicZero):
        slope = jnp.where(near, q * remainder, p - q - q * x) - q * value
        tangent += jnp.sum(slope * teacher_dot, axis)
    return jnp.squeeze(value, axis), tangent
