"""Weights that follow a reference: each rule by its definition, and in noise."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import batched, grams, jacobians


def units(matrices):
    return matrices / np.linalg.norm(matrices, axis=-1, keepdims=True)


def test_cosine_over_norm(x64):
    matrices = jacobians(4, 3, count=100)
    weights = batched(kdopt.reference_aligned_weights, grams(matrices))
    unit = units(matrices)
    parts = np.maximum(np.einsum("cin,cn->ci", unit[:, :-1], unit[:, -1]), 0)
    parts /= np.linalg.norm(matrices[:, :-1], axis=-1)
    total = parts.sum(axis=1)
    expected = parts / np.where(total > 0, total, 1)[:, None]
    np.testing.assert_allclose(weights[:, :-1], expected, atol=1e-12)
    assert np.all(weights[:, -1] == 0)
    assert np.any(total == 0) and np.any(total > 0)


def test_nearest_of_two_in_closed_form(x64):
    matrices = jacobians(3, 4, count=100)
    weights = batched(kdopt.reference_aligned_weights, grams(matrices), rule="nearest")
    shares = weights[:, :2] * np.linalg.norm(matrices[:, :2], axis=-1)
    shares /= shares.sum(axis=1, keepdims=True)
    a, b, r = units(matrices).swapaxes(0, 1)
    difference = a - b
    expected = np.sum((r - b) * difference, axis=1) / np.sum(difference**2, axis=1)
    np.testing.assert_allclose(shares[:, 0], np.clip(expected, 0, 1), atol=1e-9)


def test_nearest_beats_every_other_convex_combination(x64):
    matrices = jacobians(5, 6, count=20)
    weights = batched(kdopt.reference_aligned_weights, grams(matrices), rule="nearest")
    shares = weights[:, :-1] * np.linalg.norm(matrices[:, :-1], axis=-1)
    shares /= shares.sum(axis=1, keepdims=True)
    unit = units(matrices)

    def distance(w):
        mixed = np.einsum("...ci,cin->...cn", w, unit[:, :-1])
        return np.linalg.norm(mixed - unit[:, -1], axis=-1)

    tries = np.random.default_rng(0).dirichlet(np.ones(4), size=(2000, 20))
    assert np.all(distance(shares) <= distance(tries).min(axis=0) + 1e-12)


def test_hypergradient_is_the_derivative_of_the_reference(x64):
    """The logits move as a step on the reference loss moves them, up to a factor."""
    rows = jacobians(4, 6, count=1)[0]
    tx = kdopt.reference_aligned(
        num_losses=4, rule="hypergradient", decay=0.0, learning_rate=1.0
    )
    start = np.array([0.3, -0.2, 0.5])

    @jax.jit
    def step(grads, start):
        state = tx.init(grads[0])
        inner = state.inner._replace(logits=start)
        return tx.update(grads, state._replace(inner=inner))

    _, state = jax.device_get(step(tuple(rows), start))

    def reference(logits):
        return -jax.nn.softmax(logits) @ (rows[:3] @ rows[3])

    norms = np.linalg.norm(rows, axis=1)
    slope = np.asarray(jax.jit(jax.grad(reference))(start))
    expected = -slope / norms[3] / norms[:3].max()
    np.testing.assert_allclose(state.inner.logits - start, expected, rtol=1e-9)
    shares = np.exp(state.inner.logits)
    shares /= shares.sum()
    np.testing.assert_allclose(state.loss_weights, [*shares, 0], rtol=1e-9)


@pytest.mark.parametrize("rule", ["cosine", "nearest", "hypergradient"])
def test_finds_the_helpful_loss_in_noise(rule):
    """Two of three losses are useless; the reference sees the truth through noise."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=20)
    steps = 300
    noise = rng.normal(size=(4, steps, 20))
    rows = np.stack(
        [truth + noise[0], noise[1], noise[2] - truth, truth + 2 * noise[3]]
    )
    tx = kdopt.reference_aligned(num_losses=4, rule=rule, decay=0.99)

    def step(state, grads):
        _, state = tx.update(grads, state)
        return state, state.loss_weights

    scan = jax.jit(lambda g: jax.lax.scan(step, tx.init(g[0][0]), g)[1])
    weights = np.asarray(scan(tuple(rows)))
    late = np.mean(weights[-50:], axis=0)
    # Unit gradients that are mostly noise look orthogonal: the nearest point spreads.
    least, most = (0.45, 0.25) if rule == "nearest" else (0.8, 0.05)
    assert late[0] > least and late[2] < most and late[3] == 0


def test_a_batch_without_reference_keeps_the_mean():
    tx = kdopt.reference_aligned(num_losses=3)
    grads = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([1.0, 0.0])
    step = jax.jit(lambda s, present: tx.update(grads, s, present=present))
    equal, state = step(tx.init(jnp.zeros(2)), np.array([True, True, False]))
    np.testing.assert_allclose(equal, [0.5, 0.5])  # no reference was seen yet
    _, state = step(state, np.array([True, True, True]))
    update, state = step(state, np.array([True, True, False]))
    np.testing.assert_allclose(update, [1, 0])
    update, _ = step(state, np.array([False, True, True]))
    np.testing.assert_allclose(update, [0, 0])  # what would help is absent


def test_what_is_refused():
    with pytest.raises(ValueError, match="rule must be one of cosine"):
        inspect.unwrap(kdopt.reference_aligned)(rule="best")
    with pytest.raises(ValueError, match="at least 2"):
        kdopt.reference_aligned(num_losses=1)
