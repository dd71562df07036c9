"""Loss decrease as a function of lambda for random gradient pairs (Kim et al., Fig. 2).

Norms are uniform in [1e-5, 0.1], angles uniform in a quarter turn.
"""

import jax
import jax.numpy as jnp
import numpy as np

import kdopt

SHORTEST, LONGEST = 1e-5, 1e-1
ACUTE, OBTUSE = (0.0, np.pi / 2), (np.pi / 2, np.pi)
ANGLES = {"acute": ACUTE, "obtuse": OBTUSE}


def sample_grams(
    key: jax.Array, count: int, angles: tuple[float, float]
) -> tuple[jax.Array, jax.Array]:
    """Draws pairs of gradients as in the paper.

    Args:
        key: Random key.
        count: Number of pairs.
        angles: Smallest and largest angle between the two.

    Returns:
        Gram matrices, ``[count, 2, 2]``, and the angles, ``[count]``.
    """
    first, second = jax.random.split(key)
    norms = jax.random.uniform(first, (count, 2), minval=SHORTEST, maxval=LONGEST)
    least, most = angles
    angle = jax.random.uniform(second, (count,), minval=least, maxval=most)
    cosines = jnp.stack([jnp.ones_like(angle), jnp.cos(angle)], axis=-1)
    table = jnp.stack([cosines, cosines[:, ::-1]], axis=1)
    return table * norms[:, :, None] * norms[:, None, :], angle


@jax.jit
def vertices(grams: jax.Array) -> jax.Array:
    """Returns the vertex of each parabola, ``[n]``, not clipped."""
    return jax.vmap(kdopt.lambda_vertex)(grams)


def interior_share(grams: jax.Array) -> float:
    """Returns the fraction of parabolas with a vertex strictly between 0 and 1."""
    vertex = vertices(grams)
    return float(jnp.mean((vertex > 0) & (vertex < 1)))


def decreases(grams: jax.Array, lambdas: np.ndarray) -> np.ndarray:
    """Predicts the decrease at each lambda, ``[n, l]``."""
    each = jax.vmap(kdopt.loss_decrease, in_axes=(0, None))
    return np.asarray(each(grams, jnp.asarray(lambdas, grams.dtype)))
