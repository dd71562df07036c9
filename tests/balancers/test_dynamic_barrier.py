"""The dynamic barrier: limits are kept, curves followed, slack used."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt

ONE, TWO = jnp.array([1.0, 0.0]), jnp.array([-1.0, 0.5])


def losses_fn(x):
    return jnp.sum((x - ONE) ** 2), jnp.sum((x - TWO) ** 2)


def train(tx, steps=2000, rate=0.02):
    grad_fn = kdopt.value_and_grads(losses_fn)

    def step(carry, _):
        x, state = carry
        values, grads = grad_fn(x)
        update, state = tx.update(grads, state, x, values=values)
        return (x - rate * update, state), values

    start = jnp.array([2.0, 2.0])
    return jax.jit(lambda: jax.lax.scan(step, (start, tx.init(start)), length=steps))()


@pytest.mark.parametrize("limit", [0.5, 1.5, 3.0])
def test_ends_at_the_best_point_within_the_limit(limit):
    """The nearest point to ONE in the disc of radius sqrt(limit) around TWO."""
    (x, _), _ = train(kdopt.dynamic_barrier(limit))
    away = ONE - TWO
    expected = TWO + away * limit**0.5 / jnp.linalg.norm(away)
    np.testing.assert_allclose(x, expected, atol=2e-3)


def test_a_wide_limit_changes_nothing():
    (x, _), _ = train(kdopt.dynamic_barrier(100.0))
    np.testing.assert_allclose(x, ONE, atol=1e-4)


def test_relative_rate():
    """Without a cap and with limits of 0 the loss falls by a fraction of itself."""
    tx = kdopt.dynamic_barrier(0.0, rate=0.3, cap=None)
    rng = np.random.default_rng(0)
    step = jax.jit(tx.update)
    for _ in range(20):
        grads = tuple(jnp.asarray(rng.normal(size=(2, 4)), jnp.float32))
        values = jnp.asarray(rng.uniform(1, 3, 2), jnp.float32)
        update, _ = step(grads, tx.init(grads[0]), values=values)
        assert grads[1] @ update >= 0.3 * values[1] - 1e-4


def test_follows_a_curve():
    curve = optax.linear_schedule(6.0, 1.0, 2000)
    tx = kdopt.dynamic_barrier(curve, rate=5.0)
    (_, state), values = train(tx)
    late = values[1000:, 1]
    np.testing.assert_allclose(late, curve(jnp.arange(1000, 2000)), atol=0.05)
    assert state.inner.step == 2000


def test_the_cap():
    """Along its own gradient, a loss falls by at most its squared norm."""
    gram = jnp.array([[1.0, 0.0], [0.0, 4.0]])
    values = jnp.array([1.0, 1000.0])
    weights = kdopt.dynamic_barrier_weights(gram, values, 0.0, cap=0.5)
    np.testing.assert_allclose(weights, [1, 0.5], rtol=1e-6)
    weights = kdopt.dynamic_barrier_weights(gram, values, 0.0, cap=None)
    np.testing.assert_allclose(weights, [1, 250], rtol=1e-5)


def test_limits_of_each_loss():
    gram = jnp.diag(jnp.array([1.0, 4.0, 1.0]))
    values = jnp.array([1.0, 2.0, 3.0])
    weights = kdopt.dynamic_barrier_weights(gram, values, [1.0, 5.0])
    np.testing.assert_allclose(weights, [1, 0.25, 0], rtol=1e-6)
    with pytest.raises(ValueError, match="limits must be one number"):
        kdopt.dynamic_barrier([1.0, 2.0, 3.0])
