"""ND: what direction and length cost."""

import jax
import jax.numpy as jnp
import numpy as np

from kdopt import losses
from tests.losses._inputs import wave

MEANS = np.float32([[2.0, 0.0], [0.0, 0.5]])
Y = np.array([0], np.int32)


def test_zero_along_the_mean_and_at_least_as_long():
    loss = jax.jit(losses.nd)
    for length in (1.0, 3.0):
        x = jnp.array([[length, 0.0]])
        assert loss(x, jnp.array([[0.0, 1.0]]), Y, MEANS) == 0
    assert loss(jnp.array([[-1.0, 0.0]]), jnp.array([[1.0, 0.0]]), Y, MEANS) == 2


def test_too_short_costs_and_lengthens():
    x, t = jnp.array([[0.25, 0.0]]), jnp.array([[0.0, 1.0]])
    value, slope = jax.jit(jax.value_and_grad(losses.nd))(x, t, Y, MEANS)
    np.testing.assert_allclose(value, 0.75)
    np.testing.assert_allclose(slope, [[-1, 0]])


def test_too_long_is_left_alone():
    x, t = np.float32([[3.0, 4.0]]), np.float32([[0.0, 1.0]])
    slope = np.asarray(jax.jit(jax.grad(losses.nd))(x, t, Y, MEANS))
    # No pull along the embedding itself, only across it.
    np.testing.assert_allclose(np.sum(slope * x), 0, atol=1e-6)
    assert np.any(slope)


def test_class_means(x64):
    features, labels = wave((9, 3), 0.7, 0.2, 1), np.array([0, 2, 2, 0, 3, 3, 2, 0, 0])
    expected = np.zeros((5, 3))
    for c in (0, 2, 3):
        expected[c] = np.asarray(features)[labels == c].mean(0)
    class_means = jax.jit(losses.class_means, static_argnames="num_classes")
    means = class_means(features, labels, num_classes=5)
    np.testing.assert_allclose(means, expected, atol=1e-12)
    weights = (labels != 3).astype(np.float64)
    masked = class_means(features, labels, num_classes=5, sample_weights=weights)
    expected[3] = 0
    np.testing.assert_allclose(masked, expected, atol=1e-12)
