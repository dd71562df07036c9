"""Probabilities kept as logarithms, so that logits of any size are handled."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def split_target(
    logits: Float[Array, "b c"],
    is_target: Bool[Array, "b c"],
    is_other: Bool[Array, "b c"] | None = None,
) -> tuple[Float[Array, "b 2"], Float[Array, "b c"]]:
    """Splits a softmax into target against rest, and the rest among themselves.

    Args:
        logits: Logits, already divided by the temperature, ``[b, c]``.
        is_target: True at the one target class of each row, ``[b, c]``.
        is_other: The classes compared among themselves, ``[b, c]``; by default all
            but the target.

    Returns:
        The log-probabilities of (target, rest), ``[b, 2]``, and those of the other
        classes renormalised, ``[b, c]``, with ``-inf`` at every class left out.
    """
    if is_other is None:
        is_other = ~is_target
    log_total = jax.nn.logsumexp(logits, axis=-1)
    log_rest = jax.nn.logsumexp(logits, axis=-1, where=~is_target)
    target = jnp.sum(logits, axis=-1, where=is_target)
    binary = jnp.stack([target - log_total, log_rest - log_total], axis=-1)
    log_other = jax.nn.logsumexp(logits, axis=-1, where=is_other)
    return binary, jnp.where(is_other, logits - log_other[:, None], -jnp.inf)


def kl_divergence(
    log_q: Float[Array, "b c"], log_p: Float[Array, "b c"]
) -> Float[Array, " b"]:
    """Kullback-Leibler divergence of each row, from log-probabilities.

    A class that ``q`` does not know adds 0, whatever ``p`` says of it.
    """
    q = jnp.exp(log_q)
    known = q > 0
    gap = jnp.where(known, log_q, 0) - jnp.where(known, log_p, 0)
    return jnp.sum(q * gap, axis=-1)
