"""PBI: on the ray the distance has no gradient."""

import jax.numpy as jnp
import numpy as np

from kdopt import scalarizers

PREFERENCES, BOUNDS = [0.5, 0.2, 0.3], [0.1, 0.0, -0.2]


R, B = np.array(PREFERENCES), np.array(BOUNDS)


def test_losses_on_the_ray_are_held_there():
    """On the ray the distance has no gradient: the weights are the ray."""
    on = scalarizers.pbi_weights(jnp.asarray(3 * R), preferences=PREFERENCES)
    np.testing.assert_allclose(on, R / jnp.linalg.norm(R), rtol=1e-6)
    on = scalarizers.cosmos_weights(
        jnp.asarray(3 * R), preferences=PREFERENCES, penalty=1.0
    )
    np.testing.assert_allclose(on, R, rtol=1e-5)
