"""Universal logit distillation: sorted probabilities of two vocabularies."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from kdopt._typing import Scalar
from kdopt.losses._inputs import logit_rows, of_rows
from kdopt.losses._reduce import Denominator, batch_mean
from kdopt.losses._shapes import Rows, check_temperature
from kdopt.losses._sharding import gathered, take_entries


def universal_logit(
    student_logits: Rows,
    teacher_logits: Rows,
    *,
    temperature: ArrayLike = 1.0,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
) -> Scalar:
    r"""Computes the distance between sorted probabilities of different vocabularies.

    .. math:: L = \frac{\tau}{B} \sum_b \sum_i \lvert p_{b(i)} - q_{b(i)} \rvert

    with :math:`p_{(i)}` the :math:`i`-th largest probability, 0 beyond the smaller
    vocabulary. It does not compare which tokens are likely, only how likely: for a
    teacher with another tokenizer whose *positions* have been matched. The factor is
    :math:`\tau` as in :func:`total_variation`.

    Args:
        student_logits: ``[..., c]``.
        teacher_logits: ``[..., c']``; no gradient flows into them.
        temperature: :math:`\tau > 0`.
        sample_weights: Weights of the examples, ``[...]``; 0 masks padding.
        denominator: What the sum is divided by; see :mod:`kdopt.losses`.

    Returns:
        The mean loss, at least float32, between 0 and :math:`2 \tau`.

    Raises:
        ValueError: If a shape is wrong; the message says what to do.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> student, teacher = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0, 0.5]])
        >>> print(f"{losses.universal_logit(student, teacher):.4f}")
        0.7486

    References:
        Boizard et al., `Towards Cross-Tokenizer Distillation: the Universal Logit
        Distillation Loss for LLMs <https://arxiv.org/abs/2402.12030>`_, TMLR 2025
    """
    student, teacher, weights = logit_rows(
        student_logits, teacher_logits, sample_weights, same_classes=False
    )
    tau = check_temperature(temperature, student, weights)
    size = max(student.shape[-1], teacher.shape[-1])
    p, q = (_sorted(jax.nn.softmax(x / tau), size) for x in (student, teacher))
    per_token = jnp.sum(jnp.abs(p - q), axis=-1)
    return batch_mean(of_rows(tau) * per_token, weights, denominator)


def _sorted(probabilities: jax.Array, size: int) -> jax.Array:
    """Sorts in increasing order, with zeros in front up to a size."""
    missing = size - probabilities.shape[-1]
    padding = [(0, 0)] * (probabilities.ndim - 1) + [(missing, 0)]
    probabilities = gathered(probabilities, axis=-1)
    order = jnp.argsort(jax.lax.stop_gradient(probabilities), axis=-1)
    return jnp.pad(take_entries(probabilities, order), padding)
