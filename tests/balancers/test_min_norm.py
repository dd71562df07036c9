"""MGDA; its theorems are in the conformance, brute force in test_golden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import first_step


def test_converges_to_a_pareto_stationary_point():
    """Two quadratics: any point on the segment between their minima is stationary."""
    ends = np.array([[0.0, 0.0], [1.0, 1.0]], np.float32)

    def losses_fn(x):
        return jnp.sum((x - ends[0]) ** 2), 5 * jnp.sum((x - ends[1]) ** 2)

    tx, fn = kdopt.min_norm(), kdopt.value_and_grads(losses_fn)

    def body(carry, _):
        x, state = carry
        values, grads = fn(x)
        update, state = tx.update(grads, state, x)
        return (x - 0.05 * update, state), values

    @jax.jit
    def train(start):
        return jax.lax.scan(body, (start, tx.init(start)), length=300)

    (x, state), values = jax.device_get(train(np.array([0.9, -0.4])))
    np.testing.assert_allclose(x[0], x[1], atol=1e-3)
    assert 0 < x[0] < 1
    assert state.loss_weights @ state.gram @ state.loss_weights < 1e-5
    assert np.all(np.diff(values, axis=0) < 1e-6)


def test_zero_gradient_does_not_stop_the_other():
    """The literal minimiser would be zero."""
    grads = (np.zeros(2), np.array([3.0, 4.0]))
    for pair in (grads, grads[::-1]):
        update, _ = first_step(kdopt.min_norm(), pair)
        np.testing.assert_allclose(update, grads[1])


def test_powers_of_the_norm_lie_between_none_and_norm(x64):
    rows = np.random.default_rng(0).normal(size=(3, 5)) * [[1], [10], [0.1]]
    gram = rows @ rows.T
    power = jax.jit(kdopt.min_norm_weights)
    named = jax.jit(kdopt.min_norm_weights, static_argnames="normalize")
    for number, name in ((0.0, "none"), (1.0, "norm")):
        np.testing.assert_allclose(
            power(gram, normalize=number), named(gram, normalize=name), rtol=1e-9
        )
    scales = np.linalg.norm(rows, axis=1) ** 0.5
    scaled = rows / scales[:, None]
    expected = np.asarray(named(scaled @ scaled.T, normalize="none")) / scales
    np.testing.assert_allclose(power(gram, normalize=0.5), expected, rtol=1e-9)
    with pytest.raises(ValueError, match="normalize must lie in"):
        kdopt.min_norm(normalize=-1.0)
