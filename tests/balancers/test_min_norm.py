"""MGDA; its theorems are in the conformance, brute force in test_golden."""

import jax
import jax.numpy as jnp
import numpy as np

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
