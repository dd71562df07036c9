"""Sharpness of a minimum: the largest eigenvalues of its Hessian."""

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
    r"""Finds them by Lanczos, on products of the Hessian with vectors.

    .. math:: H v = \frac{\partial}{\partial \varepsilon}
        \nabla L(\theta + \varepsilon v) \Big|_{\varepsilon = 0}

    Args:
        loss: From parameters and one batch to the mean loss of the batch, a scalar.
        params: Parameters, more than ``count`` of them.
        batches: The data, each batch with its share of it.
        count: How many.
        tolerance: Relative error that is allowed.

    Returns:
        Eigenvalues, the largest first, ``[count]``.
    """
    point, unravel = ravel_pytree(params)
    product, size = _product(loss), len(point)

    def apply(vector: np.ndarray) -> np.ndarray:
        v = unravel(jnp.asarray(vector.ravel(), point.dtype))
        parts = [share * product(params, v, batch) for share, batch in batches]
        return np.asarray(sum(parts[1:], start=parts[0]), np.float64)

    # SciPy picks the class by its arguments, which a type checker does not see.
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
    """Compiled once for networks that share their loss."""

    @jax.jit
    def product(params: Any, vector: Any, batch: Any) -> jax.Array:
        gradient = jax.grad(lambda point: loss(point, batch))
        return ravel_pytree(jax.jvp(gradient, (params,), (vector,))[1])[0]

    return product
