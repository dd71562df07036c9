"""PBI: on the ray the distance has no gradient."""

import functools

import jax
import numpy as np

from kdopt import scalarizers

PREFERENCES, BOUNDS = [0.5, 0.2, 0.3], [0.1, 0.0, -0.2]


R, B = np.array(PREFERENCES), np.array(BOUNDS)


def test_losses_on_the_ray_are_held_there():
    """On the ray the distance has no gradient: the weights are the ray."""
    pbi = functools.partial(scalarizers.pbi_weights, preferences=PREFERENCES)
    on = jax.jit(pbi)(np.float32(3 * R))
    np.testing.assert_allclose(on, R / np.linalg.norm(R), rtol=1e-6)
    cosmos = functools.partial(
        scalarizers.cosmos_weights, preferences=PREFERENCES, penalty=1.0
    )
    on = jax.jit(cosmos)(np.float32(3 * R))
    np.testing.assert_allclose(on, R, rtol=1e-5)
