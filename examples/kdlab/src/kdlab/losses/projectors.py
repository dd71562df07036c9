"""Projections with an orthonormal matrix, from the student's width to the teacher's."""

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.losses.adapters import Shaped


class OrthogonalProjector(nnx.Module):
    """VkD's projection: linear, without bias, with an orthonormal matrix.

    The matrix is the orthogonal factor of an unconstrained one, so any optimiser can
    train it, and weight decay, which only scales that one, leaves it as it is. If the
    student is narrower than the teacher, norms are preserved.

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


class HouseholderProjector(nnx.Module):
    r"""The projection of VkD's released code, which weight decay sets to zero.

    .. math:: P = B \, H(X) \, \mathrm{diag}(\lfloor X_{ii} \rceil_0)

    with :math:`H` the product of :func:`reflect`, :math:`B` a fixed orthogonal matrix,
    :math:`X = -I` at the start, and the diagonal rounded towards 0. The first step of
    AdamW with weight decay moves the diagonal to -0.999975, which rounds to 0:
    from then on the projection and all its gradients are exactly 0. Kept to reproduce
    what that code trained with; :class:`OrthogonalProjector` stays alive.

    Args:
        student_features: Example features of the student, ``[b, d]``.
        teacher_features: Example features of the teacher, at least as wide.
        rngs: Random streams of the initial parameters.
    """

    def __init__(
        self, student_features: Shaped, teacher_features: Shaped, *, rngs: nnx.Rngs
    ):
        ours, theirs = student_features.shape[-1], teacher_features.shape[-1]
        if ours > theirs:
            raise ValueError(
                f"the student's features must not be wider than the teacher's, got "
                f"{ours} and {theirs}; take a narrower student or another loss."
            )
        init = nnx.initializers.orthogonal()
        self.base = nnx.Variable(init(rngs.params(), (theirs, theirs), jnp.float32))
        self.reflectors = nnx.Param(-jnp.eye(theirs, ours))

    def matrix(self) -> jax.Array:
        """Returns the projection ``[d, d']``."""
        vectors = self.reflectors[...]
        signs = jnp.trunc(jnp.diagonal(vectors))
        return (self.base[...] @ reflect(vectors) * signs[None]).T

    def __call__(self, student_features: jax.Array) -> jax.Array:
        """Returns the vectors for :func:`kdopt.losses.vkd`."""
        return student_features @ self.matrix().astype(student_features.dtype)


def reflect(vectors: jax.Array) -> jax.Array:
    r"""Multiplies Householder reflections and returns the first columns.

    .. math:: H_1 \cdots H_k I_{n \times k}, \qquad
        H_i = I - \frac{2}{\lVert v_i \rVert^2} v_i v_i^\top

    Args:
        vectors: ``[n, k]``; column i holds the elements of :math:`v_i` below its i-th
            element, which is 1; those above are 0. Other elements have no effect.

    Returns:
        A matrix with orthonormal columns, ``[n, k]``.
    """
    rows, columns = vectors.shape
    tails = jnp.tril(vectors, -1) + jnp.eye(rows, columns, dtype=vectors.dtype)

    def apply(product: jax.Array, v: jax.Array) -> tuple[jax.Array, None]:
        along = 2 / jnp.sum(jnp.square(v)) * (v @ product)
        return product - v[:, None] * along[None], None

    start = jnp.eye(rows, columns, dtype=vectors.dtype)
    return jax.lax.scan(apply, start, tails.T, reverse=True)[0]
