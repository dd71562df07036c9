"""Sharpness of a minimum: the largest eigenvalues of the Hessian."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.sparse.linalg import LinearOperator, eigsh

from kdlab.minima.landscape import Batches


def largest_eigenvalues(
    loss: Callable[[Any, Any], jax.Array],
    params: Any,
    batches: Batches,
    *,
    count: int = 1,
    tolerance: float = 1e-3,
) -> np.ndarray:
    r"""Finds the largest eigenvalues of the Hessian by Lanczos iteration.

    .. math:: H v = \frac{\partial}{\partial \varepsilon}
        \nabla L(\theta + \varepsilon v) \Big|_{\varepsilon = 0}

    Args:
        loss: Maps parameters and one batch to the mean loss of the batch, a scalar.
        params: More than ``count`` parameters.
        batches: Batches with their fractions of the data.
        count: Number of eigenvalues.
        tolerance: Relative tolerance.

    Returns:
        Eigenvalues in descending order, ``[count]``.
    """
    point, unravel = ravel_pytree(params)
    product, size = _product(loss), len(point)

    def apply(vector: np.ndarray) -> np.ndarray:
        v = unravel(jnp.asarray(vector.ravel(), point.dtype))
        parts = [share * product(params, v, batch) for share, batch in batches]
        return np.asarray(sum(parts[1:], start=parts[0]), np.float64)

    # SciPy chooses the class by its arguments, which type checkers cannot see.
    hessian: Any = LinearOperator
    hessian = hessian((size, size), matvec=apply, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(size)
    found = eigsh(
        hessian,
        k=count,
        which="LA",
        tol=tolerance,
        v0=start,
        return_eigenvectors=False,
    )
    return np.sort(found)[::-1]


@functools.cache
def _product(loss: Callable[[Any, Any], jax.Array]) -> Callable[..., jax.Array]:
    """Compiles the Hessian-vector product once for networks that share their loss."""

    @jax.jit
    def product(params: Any, vector: Any, batch: Any) -> jax.Array:
        gradient = jax.grad(lambda point: loss(point, batch))
        return ravel_pytree(jax.jvp(gradient, (params,), (vector,))[1])[0]

    return product
