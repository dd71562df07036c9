"""Linear algebra on [k, k] matrices, in the full precision of their dtype.

Left alone, a device may round the factors of a product: a GPU to TF32, a TPU to
bfloat16, which leaves 3 or 2 digits of the cosine between two gradients. So every
product on a Gram matrix goes through this module. What ``solve`` and ``eigh`` are
lowered to (LU and QR of the vendor's library on CPU and GPU, triangular solves and
Jacobi rotations on TPU) works in full precision by itself.
"""

import jax
import jax.numpy as jnp

from kdopt._typing import Gram, Scalar, Weights


def dot(x: jax.Array, y: jax.Array) -> jax.Array:
    """Multiplies two matrices, a matrix and a vector, or two vectors."""
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def quadratic_form(matrix: Gram, x: Weights) -> Scalar:
    r"""Returns :math:`x^\top A x`."""
    return dot(x, dot(matrix, x))


def solve(matrix: Gram, target: Weights) -> Weights:
    """Solves a regular linear system."""
    with jax.default_matmul_precision("highest"):
        return jnp.linalg.solve(matrix, target)


def eigh(matrix: Gram) -> tuple[Weights, Gram]:
    """Returns the eigenvalues in ascending order and the eigenvectors in columns."""
    with jax.default_matmul_precision("highest"):
        values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors
