"""GradNorm: the objective's gradient, equal lengths, slow losses."""

import jax
import jax.numpy as jnp
import numpy as np

import kdopt


def follow(tx, grads, values, steps):
    @jax.jit
    def scan(grads, values):
        def step(state, value):
            return tx.update(grads, state, values=value)[1], None

        return jax.lax.scan(step, tx.init(grads[0]), values)[0]

    values = np.broadcast_to(values, (steps, len(grads)))
    return jax.device_get(scan(tuple(grads), values))


def test_step_is_that_of_automatic_differentiation(x64):
    norms, values = np.array([3.0, 1.0, 0.5]), np.array([[1.0, 2.0, 4.0]] * 2)
    values[1] = [0.5, 1.8, 3.0]
    state = follow(kdopt.gradnorm(num_losses=3), np.diag(norms), values, 2)

    def objective(logits, relative):
        lengths = 3 * jax.nn.softmax(logits) * norms
        goal = jax.lax.stop_gradient(jnp.mean(lengths))
        return jnp.sum(jnp.abs(lengths - goal * relative**1.5)) / goal

    logits, slope = np.zeros(3), jax.jit(jax.grad(objective))
    for value in values:
        ratio = value / values[0]
        logits -= 0.025 * np.asarray(slope(logits, ratio / ratio.mean()))
    np.testing.assert_allclose(state.inner[0], logits, rtol=1e-9)


def test_alpha_zero_equalises_the_lengths():
    grads = np.array([[4.0, 0.0], [0.0, 1.0]])
    state = follow(kdopt.gradnorm(alpha=0.0), grads, [1.0, 1.0], 150)
    np.testing.assert_allclose(state.loss_weights, [0.4, 1.6], atol=0.05)


def test_the_slower_loss_gains():
    values = np.stack([0.9 ** np.arange(40), 0.99 ** np.arange(40)], axis=1)
    state = follow(kdopt.gradnorm(), np.eye(2), values, 40)
    assert state.loss_weights[1] > 1.2
    np.testing.assert_allclose(np.sum(state.loss_weights), 2, rtol=1e-6)
