"""Projections with an orthonormal matrix, from the student's width to the teacher's."""

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.losses.adapters import Shaped


class OrthogonalProjector(nnx.Module):
    """VkD's projection: linear, without bias, with an orthonormal matrix.

    The matrix is the orthogonal factor of an unconstrained one, so any optimiser can
    train it. If the student is narrower than the teacher, norms are preserved.

    Args:
        student_features: Example features of the student, ``[b, d]``.
        teacher_features: Example features of the teacher.
        rngs: Random streams of the initial parameters.
    """

    def __init__(
        self, student_features: Shaped, teacher_features: Shaped, *, rngs: nnx.Rngs
    ):
        widths = student_features.shape[-1], teacher_features.shape[-1]
        init = nnx.initializers.orthogonal()
        # The QR factorisation needs a tall matrix.
        shape = max(widths), min(widths)
        self.free = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.wide = widths[0] <= widths[1]

    def matrix(self) -> jax.Array:
        """Returns the projection ``[d, d']``, with orthonormal rows or columns."""
        q, r = jnp.linalg.qr(self.free[...])
        # With a positive diagonal of R the factorisation is unique, hence smooth.
        q = q * jnp.where(jnp.diagonal(r) < 0, -1, 1)[None]
        return q.T if self.wide else q

    def __call__(self, student_features: jax.Array) -> jax.Array:
        """Returns the vectors for :func:`kdopt.losses.vkd`."""
        return student_features @ self.matrix().astype(student_features.dtype)
