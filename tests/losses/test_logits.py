"""Logit losses: golden values of the reference, identities and limits."""

import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import losses


def wave(shape, a, b, c):
    """The inputs of the golden values, ``c sin(a i + b)`` in row-major order."""
    i = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    return jnp.asarray(c * np.sin(a * i + b))


@pytest.fixture
def batch(x64):
    labels = jnp.array([3, 1, 7, 0])
    return wave((4, 10), 0.7, 0.1, 2), wave((4, 10), 1.3, 0.4, 3), labels


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # megvii-research/mdistiller a08d46f, run in float64
        (lambda s, t, y: losses.cross_entropy(s, y), 1.8467082861593),
        (lambda s, t, y: losses.kd(s, t, temperature=1.0), 1.6563937038029),
        (lambda s, t, y: losses.kd(s, t, temperature=4.0), 3.0530058100839),
        (lambda s, t, y: losses.dkd(s, t, y), 25.1923433166649),
        (
            lambda s, t, y: losses.dkd(s, t, y, beta=2.0),
            0.3061186559066 + 2 * 3.1107780825948,
        ),
        (
            lambda s, t, y: losses.dkd(s, t, y, beta=0.5, temperature=1.0),
            1.0500118164919,
        ),
        (lambda s, t, y: losses.dkd(s, t, y, beta=0.0), 0.3061186559066),
        (lambda s, t, y: losses.dkd(s, t, y, alpha=0.0, beta=1.0), 3.1107780825948),
    ],
)
def test_golden_values(batch, loss, expected):
    np.testing.assert_allclose(loss(*batch), expected, rtol=1e-10)
