"""The engine of FAMO: weights and signals."""

import jax
import jax.numpy as jnp
import numpy as np

import kdopt
from kdopt import scalarizers


def _losses_fn(x):
    return jnp.sum(x**2), 0.01 * jnp.sum((x - 1) ** 2)


def test_famo_weights_are_the_gradient_of_normalised_log_losses(x64):
    values, logits = jnp.array([2.0, 0.3, 1.0]), jnp.array([0.1, -1.0, 0.4])
    bounds = jnp.array([0.5, 0.0, -1.0])
    pi = jax.nn.softmax(logits)

    def objective(values):
        gaps = values - bounds
        scale = jax.lax.stop_gradient(jnp.sum(pi / gaps))
        return jnp.sum(pi * jnp.log(gaps)) / scale

    weights = scalarizers.famo_weights(values, logits, min_losses=bounds)
    np.testing.assert_allclose(weights, jax.grad(objective)(values), rtol=1e-12)


def test_famo_weights_are_finite_at_the_edges():
    for row in ([0.0, 0.0], [1e-30, 1e30], [jnp.nan, 1.0], [jnp.inf, 1.0]):
        weights = scalarizers.famo_weights(jnp.array(row), jnp.zeros(2))
        np.testing.assert_allclose(jnp.sum(weights), 1.0, rtol=1e-6)


def test_the_signals_agree_for_small_steps(standard):
    """`gram` is the first order of `same_batch`, `next` is it one call later."""
    params = jnp.array([2.0, 3.0])
    values, per_loss = kdopt.value_and_grads(_losses_fn)(params)
    logits = {}
    for signal in ("same_batch", "gram", "next"):
        tx = kdopt.famo(signal=signal, weight_decay=0.0)
        state = tx.init(params)
        weights = kdopt.loss_weights(state, values)
        updates = jax.tree.map(lambda u: -1e-3 * u, kdopt.combine(per_loss, weights))
        extra = {"value_fn": _losses_fn, "gram": kdopt.gram(per_loss)}
        _, state = tx.update(updates, state, params, values=values, **extra)
        if signal == "next":
            later = _losses_fn(params + updates)
            _, state = tx.update(updates, state, params, values=later, **extra)
        slope = state.inner[1][0].mu
        logits[signal] = slope / jnp.linalg.norm(slope)
    np.testing.assert_allclose(logits["gram"], logits["same_batch"], atol=1e-2)
    np.testing.assert_allclose(logits["next"], logits["same_batch"], atol=1e-5)
