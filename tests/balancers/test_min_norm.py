"""MGDA; its theorems are in the conformance, brute force in test_golden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt


def test_converges_to_a_pareto_stationary_point():
    """Two quadratics: any point on the segment between their minima is stationary."""
    ends = jnp.array([[0.0, 0.0], [1.0, 1.0]])

    def losses_fn(x):
        return jnp.sum((x - ends[0]) ** 2), 5 * jnp.sum((x - ends[1]) ** 2)

    tx, fn = kdopt.min_norm(), kdopt.value_and_grads(losses_fn)

    def body(carry, _):
        x, state = carry
        values, grads = fn(x)
        update, state = tx.update(grads, state, x)
        return (x - 0.05 * update, state), values

    start = jnp.array([0.9, -0.4])
    (x, state), values = jax.lax.scan(body, (start, tx.init(start)), length=300)
    np.testing.assert_allclose(x[0], x[1], atol=1e-3)
    assert 0 < x[0] < 1
    assert state.loss_weights @ state.gram @ state.loss_weights < 1e-5
    assert jnp.all(jnp.diff(values, axis=0) < 1e-6)


def test_zero_gradient_does_not_stop_the_other():
    """The literal minimiser would be zero."""
    grads = (jnp.zeros(2), jnp.array([3.0, 4.0]))
    for pair in (grads, grads[::-1]):
        tx = kdopt.min_norm()
        update, _ = tx.update(pair, tx.init(grads[0]))
        np.testing.assert_allclose(update, grads[1])


def test_powers_of_the_norm_lie_between_none_and_norm(x64):
    rows = np.random.default_rng(0).normal(size=(3, 5)) * [[1], [10], [0.1]]
    gram = jnp.asarray(rows @ rows.T)

    def weights(normalize):
        return kdopt.min_norm_weights(gram, normalize=normalize)

    np.testing.assert_allclose(weights(0.0), weights("none"), rtol=1e-9)
    np.testing.assert_allclose(weights(1.0), weights("norm"), rtol=1e-9)
    scales = np.linalg.norm(rows, axis=1) ** 0.5
    scaled = rows / scales[:, None]
    expected = kdopt.min_norm_weights(jnp.asarray(scaled @ scaled.T)) / scales
    np.testing.assert_allclose(weights(0.5), expected, rtol=1e-9)
    with pytest.raises(ValueError, match="normalize must lie in"):
        kdopt.min_norm(normalize=-1.0)
