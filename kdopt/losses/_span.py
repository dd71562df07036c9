"""Span losses: where in a text an answer begins and ends."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from kdopt._typing import Scalar
from kdopt.losses._logits import cross_entropy, kd
from kdopt.losses._reduce import Denominator
from kdopt.losses._shapes import Rows, as_array, check_weights, show


def span_cross_entropy(
    logits: Rows,
    positions: Rows,
    *,
    token_mask: Rows | None = None,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Computes the cross-entropy of the first and the last token of an answer.

    .. math:: L = \tfrac12 (L_{start} + L_{end})

    each the cross-entropy of a softmax over the tokens of its text.

    Args:
        logits: Student logits of start and end, ``[..., t, 2]``.
        positions: Indices of the first and the last token, ``[..., 2]``. An index
            outside the text, as for a truncated answer, is left out.
        token_mask: Which tokens may be part of an answer, ``[..., t]``; the logits of
            others may be anything.
        sample_weights: Weights of the texts, ``[...]``; 0 masks padding.
        denominator: What each of the two sums is divided by; see :mod:`kdopt.losses`.

    Returns:
        The mean loss in nats, at least float32.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> logits = jnp.array([[[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
        >>> print(f"{losses.span_cross_entropy(logits, jnp.array([[0, 1]])):.4f}")
        0.3955

    References:
        Devlin et al., `BERT <https://arxiv.org/abs/1810.04805>`_, NAACL 2019,
        section 4.2
    """
    logits, weights = _by_part("logits", logits, token_mask, sample_weights)
    positions = as_array("positions", positions)
    if positions.shape != logits.shape[:-1]:
        raise ValueError(
            f"positions must be a start and an end for each text, "
            f"{list(logits.shape[:-1])}, got {show(positions)} as labels."
        )
    parts = [
        cross_entropy(
            logits[..., i, :],
            positions[..., i],
            sample_weights=weights,
            denominator=denominator,
        )
        for i in range(2)
    ]
    return (parts[0] + parts[1]) / 2


def span_kd(
    student_logits: Rows,
    teacher_logits: Rows,
    *,
    token_mask: Rows | None = None,
    temperature: ArrayLike = 1.0,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Computes the distillation loss of the first and the last token of an answer.

    .. math:: L = \tfrac12 (L_{start} + L_{end})

    each :func:`kd` between softmaxes over the tokens of a text.

    Args:
        student_logits: Logits of start and end, ``[..., t, 2]``.
        teacher_logits: ``[..., t, 2]``; no gradient flows into them.
        token_mask: Which tokens may be part of an answer, ``[..., t]``; the logits of
            others may be anything.
        temperature: :math:`\tau > 0`; the loss has the factor :math:`\tau^2`.
        sample_weights: Weights of the texts, ``[...]``; 0 masks padding.
        denominator: What each of the two sums is divided by; see :mod:`kdopt.losses`.

    Returns:
        The mean loss in nats, at least float32.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student = jnp.array([[[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
        >>> mask = jnp.array([[True, True, False]])
        >>> print(f"{losses.span_kd(student, -student, token_mask=mask):.4f}")
        0.9927
    """
    student, weights = _by_part(
        "student_logits", student_logits, token_mask, sample_weights
    )
    teacher, _ = _by_part("teacher_logits", teacher_logits, token_mask, sample_weights)
    parts = [
        kd(
            student[..., i, :],
            teacher[..., i, :],
            temperature=temperature,
            sample_weights=weights,
            denominator=denominator,
        )
        for i in range(2)
    ]
    return (parts[0] + parts[1]) / 2


def _by_part(
    name: str, logits: Rows, token_mask: Rows | None, sample_weights: Rows | None
) -> tuple[jax.Array, jax.Array | None]:
    """Returns logits ``[..., 2, t]``, ``-inf`` off the mask, and text weights."""
    logits = as_array(name, logits)
    if logits.ndim < 3 or logits.shape[-1] != 2:
        raise ValueError(
            f"{name} must have shape [..., t, 2], a start and an end for each token, "
            f"got {show(logits)}."
        )
    logits = jnp.moveaxis(logits, -1, -2)
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        logits = logits.astype(jnp.float32)
    shape = (*logits.shape[:-2], logits.shape[-1])
    dtype = jnp.dtype(jnp.float32)
    weights = check_weights(sample_weights, shape[:-1], dtype)
    if token_mask is None:
        return logits, weights
    mask = as_array("token_mask", token_mask)
    if mask.shape != shape:
        raise ValueError(
            f"token_mask must have shape [..., t] = {list(shape)}, got {show(mask)}."
        )
    kept = mask > 0 if mask.dtype != bool else mask
    some = jnp.any(kept, axis=-1)
    weights = some.astype(dtype) if weights is None else jnp.where(some, weights, 0)
    return jnp.where(jnp.expand_dims(kept, -2), logits, -jnp.inf), weights
