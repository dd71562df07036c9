"""SLAW: weights from the noise of the losses."""

import numpy as np

import kdopt
from tests.scalarizers.test_memory import VALUES, run

# A program of our own in float64, by the difference of squares.
GOLDEN = [
    [0.4285714285714286, 0.8571428571428572, 1.7142857142857144],
    [0.4159942505720485, 1.0014128267561315, 1.5825929226718203],
    [0.41275061015971404, 1.0708425140633449, 1.5164068757769407],
    [0.39029609156312917, 1.0779209652096753, 1.5317829432271952],
]


def test_golden_values(x64):
    values = np.array(VALUES)
    weights, _ = run(kdopt.slaw(num_losses=3), values)
    np.testing.assert_allclose(weights, GOLDEN, rtol=1e-5)
    first, second, deviations = np.zeros(3), np.zeros(3), []
    for row in values:
        first, second = 0.99 * first + 0.01 * row, 0.99 * second + 0.01 * row**2
        deviations.append(np.sqrt(second - first**2))
    inverse = 1 / np.array(deviations)
    expected = 3 * inverse / inverse.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)


def test_weights_are_inverse_to_the_noise():
    """Also of losses far from 0, in single precision."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3000, 2)) * [0.1, 0.02]
    weights, _ = run(kdopt.slaw(), np.float32(50 + noise))
    np.testing.assert_allclose(np.mean(weights[-500:, 1] / weights[-500:, 0]), 5, 0.1)


def test_a_constant_loss_has_a_finite_weight():
    weights, state = run(kdopt.slaw(beta=0.5), np.float32([[1.0, 0.0]] * 300))
    assert np.all(np.isfinite(weights)) and state.notfinite_count == 0
    assert np.all(state.inner.variance >= 0)
