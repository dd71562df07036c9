"""Divergences from a mixture of both distributions; these are always finite."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from kdopt._typing import Scalar
from kdopt.losses._divergence import Softened, kl_divergence, log_ratio, soften
from kdopt.losses._inputs import logit_rows, of_rows
from kdopt.losses._reduce import Denominator, batch_mean
from kdopt.losses._shapes import Rows, check_temperature


def jensen_shannon(
    student_logits: Rows,
    teacher_logits: Rows,
    *,
    beta: float = 0.5,
    temperature: ArrayLike = 1.0,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Computes the generalised Jensen-Shannon divergence, as in GKD.

    .. math::
        L = \frac{\tau^2}{B} \sum_b \big[ \beta \, \mathrm{KL}(q \,\|\, m)
            + (1 - \beta) \, \mathrm{KL}(p \,\|\, m) \big], \qquad
        m = \beta q + (1 - \beta) p

    with :math:`p, q` the student's and the teacher's probabilities at temperature
    :math:`\tau`. At the ends it is replaced by a limit on another scale, as in GKD: the
    forward divergence :math:`\mathrm{KL}(q \,\|\, p)` for :math:`\beta = 0`, the
    reverse one for 1. In between it vanishes with :math:`\beta`, so that a small
    :math:`\beta` is also a small loss: :math:`L / \beta \to \mathrm{KL}(q \,\|\, p)`.

    Args:
        student_logits: ``[..., c]``.
        teacher_logits: ``[..., c]``; no gradient flows into them.
        beta: :math:`\beta` in [0, 1].
        temperature: :math:`\tau > 0`.
        sample_weights: Weights of the examples, ``[...]``; 0 masks padding.
        denominator: What the sum is divided by; see :mod:`kdopt.losses`.

    Returns:
        The mean loss in nats, at least float32; at most :math:`\tau^2 \log 2` inside.

    Raises:
        ValueError: If ``beta`` is outside [0, 1], or a shape is wrong.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student, teacher = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0]])
        >>> for beta in (0.0, 0.5, 1.0):
        ...     print(f"{losses.jensen_shannon(student, teacher, beta=beta):.4f}")
        1.0068
        0.2081
        0.8287

    References:
        Agarwal et al., `On-Policy Distillation of Language Models
        <https://arxiv.org/abs/2306.13649>`_, ICLR 2024, Eq. 1
    """
    beta = _check_share("beta", beta, 1.0)
    student, teacher, weights = logit_rows(
        student_logits, teacher_logits, sample_weights
    )
    tau = check_temperature(temperature, student, weights)
    if beta in (0.0, 1.0):
        first, second = (student, teacher) if beta == 0 else (teacher, student)
        per_token = kl_divergence(soften(first, second, tau, tau))
    else:
        p, q, ratio = _probabilities(soften(student, teacher, tau, tau))
        per_token = beta * _mixture_kl(q, p, ratio, beta)
        per_token += (1 - beta) * _mixture_kl(p, q, -ratio, 1 - beta)
    return batch_mean(of_rows(jnp.square(tau)) * per_token, weights, denominator)


def skew_kl(
    student_logits: Rows,
    teacher_logits: Rows,
    *,
    alpha: float = 0.1,
    reverse: bool = False,
    temperature: ArrayLike = 1.0,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Computes the KL divergence from a mixture with the distribution itself.

    .. math::
        L_{forward} = \frac{\tau^2}{B} \sum_b
            \mathrm{KL}\big(q \,\|\, \alpha q + (1 - \alpha) p\big), \qquad
        L_{reverse} = \frac{\tau^2}{B} \sum_b
            \mathrm{KL}\big(p \,\|\, \alpha p + (1 - \alpha) q\big)

    with :math:`p, q` the student's and the teacher's probabilities at temperature
    :math:`\tau`. It is at most :math:`\tau^2 \log (1 / \alpha)`, so that a token about
    which the student is confidently wrong has a bounded gradient.

    Args:
        student_logits: ``[..., c]``.
        teacher_logits: ``[..., c]``; no gradient flows into them.
        alpha: :math:`\alpha` in [0, 1), the share of the distribution itself; 0 is the
            plain divergence, :func:`kd` or :func:`reverse_kl`.
        reverse: Whether to use the reverse divergence.
        temperature: :math:`\tau > 0`.
        sample_weights: Weights of the examples, ``[...]``; 0 masks padding.
        denominator: What the sum is divided by; see :mod:`kdopt.losses`.

    Returns:
        The mean loss in nats, at least float32.

    Raises:
        ValueError: If ``alpha`` is outside [0, 1), or a shape is wrong.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student, teacher = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0]])
        >>> print(f"{losses.skew_kl(student, teacher):.4f}")
        0.7233
        >>> print(f"{losses.skew_kl(student, teacher, reverse=True):.4f}")
        0.6586

    References:
        Ko et al., `DistiLLM: Towards Streamlined Distillation for Large Language Models
        <https://arxiv.org/abs/2402.03898>`_, ICML 2024, Eq. 4 and 5

    Notes:
        The released code (jongwooko/distillm d47e77f) leaves the entropy of the teacher
        out of the forward divergence, which makes it a cross-entropy: it has the same
        gradient but another value, so methods that use values give it another weight.
    """
    alpha = _check_share("alpha", alpha, math.nextafter(1.0, 0.0))
    student, teacher, weights = logit_rows(
        student_logits, teacher_logits, sample_weights
    )
    tau = check_temperature(temperature, student, weights)
    if alpha == 0:
        first, second = (teacher, student) if reverse else (student, teacher)
        per_token = kl_divergence(soften(first, second, tau, tau))
    else:
        p, q, ratio = _probabilities(soften(student, teacher, tau, tau))
        own, other = (p, q) if reverse else (q, p)
        per_token = _mixture_kl(own, other, -ratio if reverse else ratio, alpha)
    return batch_mean(of_rows(jnp.square(tau)) * per_token, weights, denominator)


def _check_share(name: str, value: float, greatest: float) -> float:
    """Checks a share, which cannot be traced: its ends have other formulas."""
    try:
        share = float(value)
    except Exception as error:
        raise ValueError(f"{name} must be a Python number, got {value!r}.") from error
    if not 0 <= share <= greatest:
        end = "1]" if greatest == 1 else "1)"
        raise ValueError(f"{name} must be in [0, {end}, got {value}.")
    return share


def _probabilities(pair: Softened) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the probabilities of student and teacher, and their log-ratio."""
    return (
        jax.nn.softmax(pair.student),
        jax.nn.softmax(pair.teacher),
        log_ratio(pair),
    )


def _mixture_kl(
    own: Float[Array, "*b c"],
    other: Float[Array, "*b c"],
    ratio: Float[Array, "*b c"],
    share: float,
) -> Float[Array, "*b"]:
    r"""Computes the divergence from a mixture, as a sum of non-negative terms.

    With :math:`s = (1 - \alpha) (r - 1)` and :math:`r` the ratio of the other
    probability to its own, the terms are :math:`\mathrm{own} \, (s - \log(1 + s))`.

    Args:
        own: Probabilities.
        other: Probabilities of the other distribution.
        ratio: Their ``log other - log own``.
        share: Share of ``own`` in the mixture, between 0 and 1.
    """
    rest = 1 - share
    near = jnp.abs(ratio) < 0.5
    close = own * _log1p_remainder(rest * jnp.expm1(jnp.where(near, ratio, 0)))
    some = ~near & (own > 0)
    moderate = jnp.clip(jnp.where(some, ratio, 0), -1e4, 1e4)
    log_mixture = jnp.logaddexp(math.log(share), math.log(rest) + moderate)
    far = rest * (other - own) - jnp.where(some, own * log_mixture, 0)
    return jnp.sum(jnp.where(near, close, far), axis=-1)


@jax.custom_jvp
def _log1p_remainder(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes ``x - log(1 + x)`` for ``-0.4 < x < 0.65``, to the last digits."""
    ratio = x / (2 + x)
    square = jnp.square(ratio)
    order = 6 if x.dtype == jnp.float32 else 14
    series = jnp.zeros_like(x)
    for k in range(order, 0, -1):
        series = square * (series + 1 / (2 * k + 1))
    return ratio * (x - 2 * series)


_log1p_remainder.defjvps(lambda tangent, _, x: tangent * x / (1 + x))
