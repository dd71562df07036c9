"""weight_search: the posterior of the candidates, and the weights that it gives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt

CANDIDATES = [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
X = jnp.zeros(2)


def after(tx, *evaluations):
    state, update = tx.init(X), jax.jit(tx.update)
    for losses in evaluations:
        _, state = update(X, state, candidate_losses=np.float32(losses))
    return state


def test_weights_are_the_posterior_mean_of_the_candidates():
    state = after(
        kdopt.weight_search(CANDIDATES, num_examples=20, decay=0.0), [0.5, 0.6, 0.8]
    )
    likelihood = np.exp(-20 * np.array([0.5, 0.6, 0.8]))
    expected = likelihood / likelihood.sum() @ np.array(CANDIDATES)
    np.testing.assert_allclose(kdopt.loss_weights(state), expected, rtol=1e-5)


def test_the_weights_follow_gradually():
    tx = kdopt.weight_search(CANDIDATES, decay=0.8)
    state = after(tx, [9.0, 9.0, 0.0])
    np.testing.assert_allclose(kdopt.loss_weights(state), [0.4, 0.6], rtol=1e-6)


def test_steps_without_an_evaluation_change_nothing():
    tx = kdopt.weight_search(CANDIDATES)
    state = after(tx, [0.1, 0.2, 0.3])
    _, same = jax.jit(tx.update)(X, state)
    assert all(map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(same)))


def test_a_candidate_that_is_not_finite_is_out():
    tx = kdopt.weight_search(CANDIDATES, decay=0.0)
    state = after(tx, [0.1, jnp.nan, 9.0])
    np.testing.assert_allclose(kdopt.loss_weights(state), [1, 0], atol=1e-6)
    assert state.notfinite_count == 0


def test_an_evaluation_without_a_finite_loss_is_held_and_counted():
    tx = kdopt.weight_search(CANDIDATES)
    state = after(tx, [0.1, 0.2, 0.3], [jnp.nan, jnp.inf, jnp.nan])
    assert state.notfinite_count == 1
    np.testing.assert_array_equal(
        kdopt.loss_weights(state), kdopt.loss_weights(after(tx, [0.1, 0.2, 0.3]))
    )


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_default_candidates_have_sum_one_and_start_even(k):
    weights = kdopt.loss_weights(kdopt.weight_search(num_losses=k).init(X))
    np.testing.assert_allclose(weights, np.full(k, 1 / k), rtol=1e-6)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([0.1, 0.9], "one row of 2 weights per candidate"),
        ([[1.0, 0.0, 0.0]], "pass num_losses="),
        ([[1.0, -0.1]], "not negative"),
        ([[1.0, float("nan")]], "finite"),
    ],
)
def test_impossible_candidates_are_refused(candidates, message):
    with pytest.raises(ValueError, match=message):
        kdopt.weight_search(candidates)


def test_another_number_of_losses_of_candidates_is_refused():
    with pytest.raises(ValueError, match="Expected 3 candidate losses"):
        after(kdopt.weight_search(CANDIDATES), [0.1, 0.2])


@pytest.mark.usefixtures("standard")
def test_probe_heads_find_the_loss_with_the_right_targets():
    """Regression whose first targets are noise: the weight goes to the second."""
    rng = np.random.default_rng(0)
    inputs, truth, noise = (
        np.float32(rng.normal(size=shape)) for shape in ((40, 5), 5, 40)
    )
    tx = optax.chain(optax.sgd(0.1), kdopt.weight_search(CANDIDATES, num_examples=10))
    table = np.float32(CANDIDATES)

    def values(head, rows):
        out = inputs[rows] @ head
        return jnp.stack(
            [jnp.mean((out - y[rows]) ** 2) for y in (noise, inputs @ truth)]
        )

    def loss(params, weights):
        each = jax.vmap(lambda head: values(head, slice(0, 30)))(params["heads"])
        return weights @ values(params["own"], slice(0, 30)) + jnp.sum(table * each)

    @jax.jit
    def step(params, state):
        grads = jax.grad(loss)(params, kdopt.loss_weights(state))
        scores = jax.vmap(lambda head: values(head, slice(30, 40))[1])(params["heads"])
        updates, state = tx.update(grads, state, params, candidate_losses=scores)
        return optax.apply_updates(params, updates), state

    params = {"own": jnp.zeros(5), "heads": jnp.zeros((3, 5))}
    state = jax.jit(tx.init)(params)
    for _ in range(50):
        params, state = step(params, state)
    assert kdopt.loss_weights(state)[1] > 0.99
    np.testing.assert_allclose(params["own"], truth, atol=0.05)
