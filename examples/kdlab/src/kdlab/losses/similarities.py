"""Manifold distillation: similarities of tokens within and between images."""

from typing import Any

import jax
import jax.numpy as jnp

from kdlab.losses.base import Batch
from kdlab.losses.tokens import TokenAndFeatureLosses
from kdlab.models import Outputs

LAYERS = 4  # at the beginning and at the end
TOKENS = 192


class Manifold(TokenAndFeatureLosses):
    """Two losses: KL divergence, and similarities of tokens in eight layers.

    The task has weight 0, as in the reference. Both networks have as many patches; the
    layers are the first and the last four of each network.
    """

    weights = (0.0, 1.0, 1.0)
    any_batch = False
    keeps = ("features",)

    def look(self, outputs: Outputs) -> Any:
        """Returns the tokens of the eight layers."""
        return _layers(outputs)

    def distance(self, student: Any, teacher: Any, batch: Batch) -> jax.Array:
        if [x.shape[:2] for x in student] != [x.shape[:2] for x in teacher]:
            raise ValueError(
                "--loss manifold compares transformers with as many patches, and as "
                "many blocks or at least eight each: choose another --teacher, such as "
                "cait_s24 for deit_ti."
            )
        pairs = list(zip(student, teacher, strict=True))
        keys = jax.random.split(batch.key, len(pairs))
        found = [
            manifold(*pair, batch.weights, key)
            for pair, key in zip(pairs, keys, strict=True)
        ]
        return jnp.asarray(sum(found) / len(found))


def manifold(
    student: jax.Array, teacher: jax.Array, weights: jax.Array, key: jax.Array
) -> jax.Array:
    """Combines the three terms with weights 4, 0.1 and 0.2.

    Args:
        student: Tokens of the student, ``[b, n, d]``.
        teacher: Tokens of the teacher, ``[b, n, d']``.
        weights: Sample weights, ``[b]``.
        key: Random key of the tokens that the third term compares.

    References:
        Hao et al., `Learning Efficient Vision Transformers via Fine-Grained Manifold
        Distillation <https://arxiv.org/abs/2107.01378>`_, NeurIPS 2022
    """
    count = student.shape[0] * student.shape[1]
    chosen = jax.random.permutation(key, count)[:TOKENS]
    ours, theirs = _directions(student), _directions(jax.lax.stop_gradient(teacher))
    of_tokens = jnp.repeat(weights, student.shape[1])
    return (
        4.0 * patch_term(ours, theirs, weights)
        + 0.1 * sample_term(ours, theirs, weights)
        + 0.2 * random_term(ours, theirs, of_tokens, chosen)
    )


def patch_term(ours: jax.Array, theirs: jax.Array, weights: jax.Array) -> jax.Array:
    """Compares the similarities of the patches of one image.

    Args:
        ours: Unit vectors ``[b, n, d]``.
        theirs: Unit vectors ``[b, n, d']``.
        weights: Sample weights, ``[b]``.
    """
    gaps = jnp.square(_similar(ours) - _similar(theirs))
    return jnp.average(jnp.mean(gaps, (1, 2)), weights=weights)


def sample_term(ours: jax.Array, theirs: jax.Array, weights: jax.Array) -> jax.Array:
    """Compares the similarities of the images at one position; see `patch_term`."""
    gaps = jnp.square(_similar(ours.swapaxes(0, 1)) - _similar(theirs.swapaxes(0, 1)))
    return _pair_mean(jnp.mean(gaps, 0), weights)


def random_term(
    ours: jax.Array, theirs: jax.Array, weights: jax.Array, chosen: jax.Array
) -> jax.Array:
    """Compares the similarities of some tokens of the batch.

    Args:
        ours: Unit vectors ``[b, n, d]``.
        theirs: Unit vectors ``[b, n, d']``.
        weights: Weights of all tokens, ``[b * n]``.
        chosen: Places of the tokens in the batch, ``[k]``.
    """
    rows = (x.reshape(-1, x.shape[-1])[chosen] for x in (ours, theirs))
    mine, yours = map(_similar, rows)
    return _pair_mean(jnp.square(mine - yours), weights[chosen])


def _layers(outputs: Outputs) -> list[jax.Array]:
    """Returns the tokens of the first and last layers, ``[b, n, d]`` each."""
    maps = outputs.features[1:]  # the first is the stem
    chosen = maps if len(maps) < 2 * LAYERS else (*maps[:LAYERS], *maps[-LAYERS:])
    return [x.reshape(len(x), -1, x.shape[-1]) for x in chosen]


def _directions(x: jax.Array) -> jax.Array:
    squares = jnp.sum(jnp.square(x), -1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def _similar(x: jax.Array) -> jax.Array:
    return jnp.einsum("...id,...jd->...ij", x, x, precision="highest")


def _pair_mean(gaps: jax.Array, weights: jax.Array) -> jax.Array:
    """Averages over pairs of rows, each with the product of their weights."""
    total = jnp.square(jnp.sum(weights))
    return weights @ gaps @ weights / jnp.where(total > 0, total, 1)
