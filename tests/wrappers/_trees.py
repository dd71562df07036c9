"""Gradients of two losses for the tests of wrappers."""

import jax.numpy as jnp
import numpy as np

PARAMS = {"head": jnp.zeros(2), "trunk": jnp.zeros((2, 2))}


def draw(seed, dtype=jnp.float32):
    """Draws two trees like ``PARAMS``."""
    rng = np.random.default_rng(seed)
    return tuple(
        {name: rng.normal(size=x.shape).astype(dtype) for name, x in PARAMS.items()}
        for _ in range(2)
    )
