r"""Divergences that keep their digits between networks that nearly agree.

The sum of :math:`q (\log q - \log p)` cancels when :math:`p` is near :math:`q`: its
terms are as large as the difference, the divergence as its square. With the gap
:math:`d` of the logits and :math:`u = d - \mathrm{E}_q d`,

.. math::
    \mathrm{KL}(q \,\|\, p) = \log \mathrm{E}_q e^u
        = \log\big(1 + \mathrm{E}_q [e^u - 1 - u]\big),

of which no term is negative. All that is needed is the gap itself, and that is why it
is taken from the logits before anything is rounded.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float


class Softened(NamedTuple):
    """Logits of both networks over their temperatures, each row up to a constant.

    Attributes:
        student: The student's, ``[b, c]``.
        teacher: The teacher's, ``[b, c]``.
        gap: The student's less the teacher's, ``[b, c]``, without cancellation.
    """

    student: Float[Array, "b c"]
    teacher: Float[Array, "b c"]
    gap: Float[Array, "b c"]


def possible(student: jax.Array, teacher: jax.Array) -> Bool[Array, "b c"]:
    """Marks the classes that are not impossible, of logit ``-inf``, for both."""
    return ~(jnp.isneginf(student) & jnp.isneginf(teacher))


def soften(
    student: Float[Array, "b c"],
    teacher: Float[Array, "b c"],
    tau_student: Float[Array, "..."],
    tau_teacher: Float[Array, "..."],
    where: Bool[Array, "b c"] | None = None,
) -> Softened:
    """Divides the logits by their temperatures, and takes the gap between them.

    Args:
        student: Logits; ``-inf`` for an impossible class.
        teacher: Logits.
        tau_student: Temperature of the student, ``[]`` or ``[b, 1]``.
        tau_teacher: Temperature of the teacher.
        where: The classes whose greatest logits become 0; all by default. The rest is
            shifted along.

    Returns:
        The softened logits. A class that is impossible for both has a gap of 0. One
        that is so for the teacher alone has that of the student to the top: it counts
        nowhere but passes the gradient on.
    """
    none_s, none_t = jnp.isneginf(student), jnp.isneginf(teacher)
    counted = possible(student, teacher)
    if where is not None:
        counted &= where
    top_s, top_t = _tops(student, counted), _tops(teacher, counted)
    # Without an infinite number even in what is not selected: its slope is NaN.
    s = jnp.where(none_s | none_t, top_s, student)
    t = jnp.where(none_s | none_t, top_t, teacher)
    (gap, rest), (shift, rest_of_shift) = _difference(s, t), _difference(top_s, top_t)
    gap = ((gap - shift) + (rest - rest_of_shift)) / tau_student
    # 0 if the temperatures are one.
    gap += (t - top_t) * ((tau_teacher - tau_student) / (tau_student * tau_teacher))

    def over(logits, none, top, tau):
        # The greatest is 0 before the division: XLA may multiply by the inverse, which
        # is off by a rounding of the logit.
        scaled = (jnp.where(none, top, logits) - top) / tau
        return jnp.where(none, -jnp.inf, scaled)

    a = over(student, none_s, top_s, tau_student)
    b = over(teacher, none_t, top_t, tau_teacher)
    gap = jnp.where(none_t, jnp.where(none_s, 0, a), jnp.where(none_s, -jnp.inf, gap))
    return Softened(a, b, gap)


def kl_divergence(
    pair: Softened, where: Bool[Array, "b c"] | None = None
) -> Float[Array, " b"]:
    """Kullback-Leibler divergence of the student from the teacher, row by row.

    Args:
        pair: Softened logits.
        where: The classes compared, among which both are renormalised; all by default.

    Returns:
        The divergences, ``[b]``: not negative, and infinite where the student gives a
        class no chance that the teacher does give one. With ``where``, 0 in a row in
        which the teacher knows none of the classes compared.
    """
    if where is None:
        return _kl(*pair, -1)
    known = jnp.any(where & ~jnp.isneginf(pair.teacher), axis=-1, keepdims=True)
    student, teacher = (
        jnp.where(known, jnp.where(where, x, -jnp.inf), 0)
        for x in (pair.student, pair.teacher)
    )
    return _kl(student, teacher, jnp.where(known & where, pair.gap, 0), -1)


def bernoulli_kl(
    student: Float[Array, "..."], teacher: Float[Array, "..."], gap: Float[Array, "..."]
) -> Float[Array, "..."]:
    """The same between the probabilities of yes and no, whose logits are given.

    Args:
        student: Logits of yes against no, of any shape and size.
        teacher: Logits of the teacher.
        gap: The student's less the teacher's.

    Returns:
        The divergences, of the same shape.
    """
    # What both are certain of does not count, and what the teacher is certain of is
    # the fixed point from which the other gap is measured.
    gap = jnp.where((student == teacher) & jnp.isinf(student), 0, gap)
    yes = teacher > 0
    gaps = jnp.stack([jnp.where(yes, 0, gap), jnp.where(yes, -gap, 0)])
    return _kl(_yes_and_no(student), _yes_and_no(teacher), gaps, 0)


class Target(NamedTuple):
    """The target class against the rest: logits of yes against no, each ``[b]``."""

    student: Float[Array, " b"]
    teacher: Float[Array, " b"]
    gap: Float[Array, " b"]


def target_against_rest(
    pair: Softened, is_target: Bool[Array, "b c"], rest_kl: Float[Array, " b"]
) -> Target:
    """Log-odds of the target class, and their gap.

    Args:
        pair: Softened logits, the rest of the classes shifted to 0.
        is_target: True at the one target class of each row.
        rest_kl: The divergence over the rest, as of :func:`kl_divergence`.

    Returns:
        The log-odds of the student and of the teacher.
    """
    student, teacher, gap = (
        jnp.sum(x, axis=-1, where=is_target)
        for x in (pair.student, pair.teacher, pair.gap)
    )
    rest_s, rest_t = (
        jax.nn.logsumexp(x, axis=-1, where=~is_target)
        for x in (pair.student, pair.teacher)
    )
    # The rest's gap is the logarithm of its mean e^d: its mean d and the divergence.
    known = jnp.isfinite(rest_t)
    q = jax.nn.softmax(jnp.where(known[:, None], pair.teacher, 0), where=~is_target)
    rest_gap = jnp.sum(jnp.where(q > 0, q * pair.gap, 0), axis=-1) + rest_kl
    rest_gap = jnp.where(known, rest_gap, rest_s)
    return Target(student - rest_s, teacher - rest_t, gap - rest_gap)


def exp_remainder(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes ``exp(x) - 1 - x`` for ``|x| <= 1/2``, to the last digits."""
    order = 8 if x.dtype == jnp.float32 else 15
    series = jnp.ones_like(x)
    for k in range(order + 2, 2, -1):
        series = 1 + x / k * series
    return jnp.square(x) / 2 * series


def _tops(logits, counted):
    """The greatest logit of those that count; 0 if all are impossible. No gradient."""
    tops = jnp.max(logits, -1, keepdims=True, where=counted, initial=-jnp.inf)
    return jax.lax.stop_gradient(jnp.where(jnp.isneginf(tops), 0, tops))


def _difference(x, y):
    """The difference and, exactly, what its rounding left out."""
    difference = x - y
    taken = difference - x
    rest = (x - (difference - taken)) - (y + taken)
    return difference, jax.lax.stop_gradient(jnp.where(jnp.isfinite(rest), rest, 0))


def _yes_and_no(logits):
    """Logits of both answers, the greater of them 0; ``[2, ...]``."""
    return jnp.stack([jnp.minimum(logits, 0), -jnp.maximum(logits, 0)])


def _terms(student, teacher, gap, axis):
    """The divergence, both probabilities, and log p - log q where q is not 0."""
    log_p = jax.nn.log_softmax(student, axis)
    log_q = jax.nn.log_softmax(teacher, axis)
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    known = q > 0
    # Good enough from 1 on, and never wrong by much.
    plain = jnp.sum(jnp.where(known, q * (log_q - log_p), 0), axis, keepdims=True)
    gap = jnp.where(known, gap, 0)
    u = gap - jnp.sum(q * gap, axis, keepdims=True)
    # q e^u is p e^KL, also where q is 0 and e^u infinite.
    far = p * jnp.exp(jnp.minimum(plain, 1)) - q - q * u
    near = known & (jnp.abs(u) < 0.5)
    excess = jnp.where(near, q * exp_remainder(jnp.where(near, u, 0)), far)
    exact = jnp.log1p(jnp.sum(excess, axis, keepdims=True))
    value = jnp.where(plain < 1, exact, plain)
    return value, p, q, u - value


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _kl(student, teacher, gap, axis):
    return jnp.squeeze(_terms(student, teacher, gap, axis)[0], axis)


@functools.partial(_kl.defjvp, symbolic_zeros=True)
def _kl_jvp(axis, primals, tangents):
    """P - q along the gap, for a fixed teacher; both without cancellation.

    The student is the teacher and the gap: its own tangent is that of the others.
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
