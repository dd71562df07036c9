"""The dynamic barrier: limits are kept, curves followed, slack used."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt

ONE = np.array([1.0, 0.0], np.float32)
TWO = np.array([-1.0, 0.5], np.float32)


def losses_fn(x):
    return jnp.sum((x - ONE) ** 2), jnp.sum((x - TWO) ** 2)


def train(tx, steps=2000, rate=0.02):
    grad_fn = kdopt.value_and_grads(losses_fn)

    def step(carry, _):
        x, state = carry
        values, grads = grad_fn(x)
        update, state = tx.update(grads, state, x, values=values)
        return (x - rate * update, state), values

    @jax.jit
    def run(start):
        return jax.lax.scan(step, (start, tx.init(start)), length=steps)

    return jax.device_get(run(np.array([2.0, 2.0])))


@pytest.mark.parametrize("limit", [0.5, 1.5, 3.0])
def test_ends_at_the_best_point_within_the_limit(limit):
    """The nearest point to ONE in the disc of radius sqrt(limit) around TWO."""
    (x, _), _ = train(kdopt.dynamic_barrier(limit))
    away = ONE - TWO
    expected = TWO + away * limit**0.5 / np.linalg.norm(away)
    np.testing.assert_allclose(x, expected, atol=2e-3)


def test_a_wide_limit_changes_nothing():
    (x, _), _ = train(kdopt.dynamic_barrier(100.0))
    np.testing.assert_allclose(x, ONE, atol=1e-4)


def test_relative_rate():
    """Without a cap and with limits of 0 the loss falls by a fraction of itself."""
    tx = kdopt.dynamic_barrier(0.0, rate=0.3, cap=None)
    rng, state = np.random.default_rng(0), tx.init(jnp.zeros(4))
    step = jax.jit(lambda grads, values: tx.update(grads, state, values=values)[0])
    for _ in range(20):
        grads = tuple(rng.normal(size=(2, 4)))
        values = rng.uniform(1, 3, 2)
        update = np.asarray(step(grads, values))
        assert grads[1] @ update >= 0.3 * values[1] - 1e-4


def test_follows_a_curve():
    curve = optax.linear_schedule(6.0, 1.0, 2000)
    tx = kdopt.dynamic_barrier(curve, rate=5.0)
    (_, state), values = train(tx)
    late = values[1000:, 1]
    expected = jax.jit(curve)(np.arange(1000, 2000))
    np.testing.assert_allclose(late, expected, atol=0.05)
    assert state.inner.step == 2000


def test_the_cap():
    """Along its own gradient, a loss falls by at most its squared norm."""
    gram = np.array([[1.0, 0.0], [0.0, 4.0]])
    values = np.array([1.0, 1000.0])
    solve = jax.jit(kdopt.dynamic_barrier_weights)
    weights = solve(gram, values, 0.0, cap=0.5)
    np.testing.assert_allclose(weights, [1, 0.5], rtol=1e-6)
    weights = solve(gram, values, 0.0, cap=None)
    np.testing.assert_allclose(weights, [1, 250], rtol=1e-5)


def test_limits_of_each_loss():
    gram, values = np.diag([1.0, 4.0, 1.0]), np.array([1.0, 2.0, 3.0])
    solve = functools.partial(kdopt.dynamic_barrier_weights, limits=[1.0, 5.0])
    weights = jax.jit(solve)(gram, values)
    np.testing.assert_allclose(weights, [1, 0.25, 0], rtol=1e-6)
    with pytest.raises(ValueError, match="limits must be one number"):
        kdopt.dynamic_barrier([1.0, 2.0, 3.0])
