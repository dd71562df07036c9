"""hypergradient: finds what helps the reference, at the cost of one backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt

pytestmark = pytest.mark.usefixtures("standard")


def losses_fn(x):
    return jnp.sum((x - 1) ** 2), jnp.sum((x + 1) ** 2), jnp.sum(jnp.cos(5 * x))


def train(tx, steps=150, present=None):
    grad_fn = kdopt.linearize(losses_fn)

    def step(carry, _):
        x, state = carry
        at = grad_fn(x)
        slopes = at.slopes(2 * (x - 0.8))
        grads = at.gradient(kdopt.loss_weights(state))
        updates, state = tx.update(grads, state, x, slopes=slopes, present=present)
        return (optax.apply_updates(x, updates), state), None

    start = jnp.zeros(3)
    scan = jax.jit(lambda: jax.lax.scan(step, (start, tx.init(start)), length=steps))
    return scan()[0][1][-1]


def test_the_helpful_loss_gets_the_weight():
    tx = optax.chain(optax.sgd(0.02), kdopt.hypergradient(0.1, num_losses=3))
    weights = train(tx).loss_weights
    assert weights[0] > 0.6 and weights[0] > 3 * weights[1]
    np.testing.assert_allclose(jnp.sum(weights), 1, rtol=1e-6)


def test_the_logit_of_an_absent_loss_stays():
    tx = optax.chain(optax.sgd(0.02), kdopt.hypergradient(0.1, num_losses=3))
    logits = train(tx, present=jnp.array([True, True, False])).logits
    assert logits[2] == 0 and logits[0] > 0


def test_the_first_step_is_against_the_derivative():
    tx = kdopt.hypergradient(0.1, num_losses=3, weight_decay=0.0)
    x = jnp.zeros(3)
    _, state = jax.jit(tx.update)(x, tx.init(x), slopes=np.float32([3, -1, 1]))
    np.testing.assert_allclose(state.logits, [0.1, -0.1, 0], atol=1e-5)


def test_faulty_slopes_are_held_and_counted():
    tx = kdopt.hypergradient(num_losses=3)
    x, update = jnp.zeros(3), jax.jit(tx.update)
    _, state = update(x, tx.init(x), slopes=np.float32([1, 2, 3]))
    _, after = update(x, state, slopes=np.float32([1, np.nan, 3]))
    assert after.notfinite_count == 1
    jax.tree.map(
        np.testing.assert_array_equal,
        after._replace(notfinite_count=0 * after[2]),
        state,
    )


def test_what_is_asked_for():
    tx = kdopt.hypergradient()
    with pytest.raises(ValueError, match="needs slopes="):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    with pytest.raises(ValueError, match="Expected 2 slopes"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), slopes=jnp.ones(3))
