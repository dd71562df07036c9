"""Inverses of a Gram matrix that may be singular."""

import jax
import jax.numpy as jnp

from kdopt._linalg import dot, eigh
from kdopt._typing import Gram, Weights


def positive_spectrum(matrix: Gram) -> tuple[Weights, Gram, jax.Array]:
    """Returns ascending eigenvalues, eigenvectors, and which of them count.

    Returns:
        ``[k]``, ``[k, k]`` with vectors in columns, and ``[k]`` of bools: False for
        what is zero to rounding.
    """
    values, vectors = eigh(matrix)
    floor = values[-1] * len(matrix) * jnp.finfo(matrix.dtype).eps
    return values, vectors, values > jnp.maximum(floor, 0)


def pseudo_inverse(matrix: Gram) -> Gram:
    """Computes the Moore-Penrose inverse of a positive semi-definite matrix."""
    values, vectors, counts = positive_spectrum(matrix)
    inverse = jnp.where(counts, 1 / jnp.where(counts, values, 1), 0)
    return dot(vectors * inverse[None, :], vectors.T)
