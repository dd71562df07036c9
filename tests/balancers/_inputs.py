"""Jacobians and Gram matrices that the tests of the balancers share."""

import functools

import jax
import numpy as np

GOLDEN = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
"""The Jacobian of the golden values of SimplexLab/TorchJD 862baed."""

GOLDEN_GRAM = GOLDEN @ GOLDEN.T


def jacobians(k: int, n: int, *, count: int = 32, spread: float = 1.0, seed: int = 0):
    """Normal matrices ``[count, k, n]`` with rows of very different lengths."""
    rng = np.random.default_rng(100 * k + n + seed)
    lengths = 10 ** rng.uniform(-spread, spread, size=(count, k, 1))
    return rng.normal(size=(count, k, n)) * lengths


def grams(matrices: np.ndarray) -> np.ndarray:
    """Gram matrices of a batch of Jacobians."""
    return matrices @ matrices.swapaxes(-1, -2)


@functools.cache
def _compiled(weights_fn, **options):
    """Once a method, however many tests call it: numbers are arguments, as others."""

    def weights_of_all(matrices, numbers):
        fn = functools.partial(weights_fn, **options, **numbers)
        return jax.vmap(fn)(matrices)

    return jax.jit(weights_of_all)


def _is_option(x) -> bool:
    return x is None or isinstance(x, str | int)


def _number(x):
    """Keeps a float, which takes on the dtype of the matrices; a sequence in numpy."""
    return x if isinstance(x, float) else np.asarray(x)


def batched(weights_fn, matrices: np.ndarray, dtype=None, **kwargs) -> np.ndarray:
    """Weights for a batch of Gram matrices, ``[count, k]``, in float64."""
    numbers = {name: _number(x) for name, x in kwargs.items() if not _is_option(x)}
    fn = _compiled(weights_fn, **{n: x for n, x in kwargs.items() if _is_option(x)})
    return np.asarray(fn(np.asarray(matrices, dtype), numbers)).astype(np.float64)


def first_step(tx, grads, **kwargs):
    """Takes the first step; returns the update and the state, in numpy."""
    step = jax.jit(lambda grads, kw: tx.update(grads, tx.init(grads[0]), **kw))
    return jax.device_get(step(grads, kwargs))


def rates(matrices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Products of each unit gradient with the update, in units of its own length."""
    updates = np.einsum("ck,ckn->cn", weights, matrices)
    norms = np.linalg.norm(matrices, axis=-1)
    length = np.linalg.norm(updates, axis=-1, keepdims=True)
    return np.einsum("ckn,cn->ck", matrices, updates) / norms / length
