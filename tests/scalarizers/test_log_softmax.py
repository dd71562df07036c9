"""The engine of FAMO: weights and signals."""

import jax
import jax.numpy as jnp
import numpy as np

import kdopt
from kdopt import scalarizers


def _losses_fn(x):
    return jnp.sum(x**2), 0.01 * jnp.sum((x - 1) ** 2)


def test_famo_weights_are_the_gradient_of_normalised_log_losses(x64):
    values, logits = np.array([2.0, 0.3, 1.0]), np.array([0.1, -1.0, 0.4])
    bounds = np.array([0.5, 0.0, -1.0])
    pi = np.exp(logits) / np.sum(np.exp(logits))

    def objective(values):
        gaps = values - bounds
        scale = jax.lax.stop_gradient(jnp.sum(pi / gaps))
        return jnp.sum(pi * jnp.log(gaps)) / scale

    famo_weights = jax.jit(scalarizers.famo_weights)
    weights = famo_weights(values, logits, min_losses=bounds)
    expected = jax.jit(jax.grad(objective))(values)
    np.testing.assert_allclose(weights, expected, rtol=1e-12)


def test_famo_weights_are_finite_at_the_edges():
    famo_weights, logits = jax.jit(scalarizers.famo_weights), jnp.zeros(2)
    for row in ([0.0, 0.0], [1e-30, 1e30], [np.nan, 1.0], [np.inf, 1.0]):
        weights = famo_weights(np.float32(row), logits)
        np.testing.assert_allclose(np.sum(weights), 1.0, rtol=1e-6)


def test_the_signals_agree_for_small_steps(standard):
    """`gram` is the first order of `same_batch`, `next` is it one call later."""
    params = jnp.array([2.0, 3.0])

    def slope(signal):
        tx = kdopt.famo(signal=signal, weight_decay=0.0)
        values, per_loss = kdopt.value_and_grads(_losses_fn)(params)
        state = tx.init(params)
        weights = kdopt.loss_weights(state, values)
        updates = jax.tree.map(lambda u: -1e-3 * u, kdopt.combine(per_loss, weights))
        extra = {"value_fn": _losses_fn, "gram": kdopt.gram(per_loss)}
        _, state = tx.update(updates, state, params, values=values, **extra)
        if signal == "next":
            later = _losses_fn(params + updates)
            _, state = tx.update(updates, state, params, values=later, **extra)
        mu = state.inner[1][0].mu
        return mu / jnp.linalg.norm(mu)

    exact, gram, later = jax.jit(
        lambda: [slope(signal) for signal in ("same_batch", "gram", "next")]
    )()
    np.testing.assert_allclose(gram, exact, atol=1e-2)
    np.testing.assert_allclose(later, exact, atol=1e-5)
