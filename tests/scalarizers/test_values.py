"""Scalarizers whose weights are the gradient of a function of the values."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import kdopt
from kdopt.scalarizers import ValuesState
from tests._methods import METHODS

PREFERENCES, BOUNDS = [0.5, 0.2, 0.3], [0.1, 0.0, -0.2]


R, B = np.array(PREFERENCES), np.array(BOUNDS)


def _stch(values):
    return 0.7 * jax.nn.logsumexp(R * (values - B) / 0.7)


def _geometric_mean(values):
    return jnp.prod(values - B) ** (1 / 3)


def _cosmos(values):
    cosine = jnp.dot(R, values) / jnp.linalg.norm(R) / jnp.linalg.norm(values)
    return jnp.dot(R, values) - 2.0 * cosine


def _pbi(values):
    ray = R / jnp.linalg.norm(R)
    along = jnp.dot(ray, values - B)
    return along + 5.0 * jnp.linalg.norm(values - B - along * ray)


CASES = {
    "stch": (
        _stch,
        kdopt.stch(mu=0.7, preferences=PREFERENCES, min_losses=BOUNDS, num_losses=3),
    ),
    "geometric_mean": (
        _geometric_mean,
        kdopt.geometric_mean(min_losses=BOUNDS, num_losses=3),
    ),
    "cosmos": (
        _cosmos,
        kdopt.cosmos(penalty=2.0, preferences=PREFERENCES, num_losses=3),
    ),
    "pbi": (_pbi, kdopt.pbi(preferences=PREFERENCES, min_losses=BOUNDS, num_losses=3)),
}


@pytest.mark.parametrize("name", CASES)
def test_weights_are_the_gradient_of_the_scalarisation(name, x64):
    function, tx = CASES[name]
    state = tx.init(jnp.zeros(2))
    both = jax.jit(lambda x: (kdopt.loss_weights(state, x), jax.grad(function)(x)))
    for seed in range(3):
        weights, expected = both(np.random.default_rng(seed).uniform(0.3, 4.0, 3))
        np.testing.assert_allclose(weights, expected, rtol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_values_that_are_not_finite_bring_the_last_weights_back(name):
    _, tx = CASES[name]
    params = jnp.zeros(2)
    state = tx.init(params)
    update, weights = jax.jit(tx.update), jax.jit(kdopt.loss_weights)
    assert np.all(np.isfinite(weights(state, np.full(3, np.nan, np.float32))))
    good, bad = np.float32([1, 2, 3]), np.float32([1, np.nan, np.inf])
    expected = weights(state, good)
    _, state = update(params, state, params, values=good)
    np.testing.assert_array_equal(weights(state, bad), expected)
    _, state = update(params, state, params, values=bad)
    np.testing.assert_array_equal(weights(state, bad), expected)
    assert state.notfinite_count == 1


@pytest.mark.parametrize("name", CASES)
def test_edges_are_finite(name):
    _, tx = CASES[name]
    state = tx.init(jnp.zeros(2))
    weights = jax.jit(kdopt.loss_weights)
    for values in (np.zeros(3), np.full(3, 1e-18), np.full(3, 1e18), R, R + B):
        assert np.all(np.isfinite(weights(state, values.astype(np.float32))))


@pytest.mark.parametrize("name", CASES)
def test_weights_without_values_say_what_to_pass(name):
    _, tx = CASES[name]
    with pytest.raises(ValueError, match=r"kdopt.loss_weights\(opt_state, values\)"):
        kdopt.loss_weights(tx.init(jnp.zeros(2)))
    with pytest.raises(ValueError, match="pass them by name"):
        tx.update(jnp.zeros(2), tx.init(jnp.zeros(2)))


def test_preferences_of_the_wrong_length_say_so():
    with pytest.raises(ValueError, match="preferences must be a number or 2 of them"):
        kdopt.stch(preferences=PREFERENCES).init(jnp.zeros(2))


def test_injected_hyperparameters_reach_the_weights(standard):
    """A schedule of mu: the state must follow it, not keep the first value."""

    def schedule(count):
        return jnp.where(count < 1, 1.0, 1e-6)

    tx = optax.inject_hyperparams(kdopt.stch, static_args=("num_losses",))(mu=schedule)
    params, values = jnp.zeros(2), np.float32([1, 3])
    update, weights = jax.jit(tx.update), jax.jit(kdopt.loss_weights)
    state = tx.init(params)
    before = weights(state, values)
    for _ in range(2):
        _, state = update(params, state, params, values=values)
    after = weights(state, values)
    assert before[0] > 0.1
    np.testing.assert_allclose(after, [0.0, 0.5], atol=1e-6)


def _two_steps(method, params):
    tx, k = method.make(method.few), method.few
    extras = dict(method.extras(k))

    @jax.jit
    def steps():
        state = tx.init(params)
        for step in (1.0, 2.0):
            values = jnp.linspace(1.0, 2.0, k) / step
            _, state = tx.update(params, state, params, values=values, **extras)
        return state

    return steps()


SCALARIZERS = {method.name: method for method in METHODS if method.scalarizer}


@pytest.mark.parametrize("name", SCALARIZERS)
def test_states_of_two_transforms_have_one_structure(name, standard):
    """A checkpoint is restored into a state of another process."""
    method, params = SCALARIZERS[name], jnp.array([1.0, 2.0])
    state = _two_steps(method, params)
    fresh = method.make(method.few).init(params)
    assert jax.tree.structure(fresh) == jax.tree.structure(state)
    restored = jax.tree.unflatten(jax.tree.structure(fresh), jax.tree.leaves(state))
    values = np.linspace(3.0, 1.0, method.few, dtype=np.float32)
    got, expected = (kdopt.loss_weights(s, values) for s in (restored, state))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", SCALARIZERS)
def test_the_weights_in_a_state_are_an_array(name, standard):
    """Where they depend on the values, those of the last step."""
    method, params = SCALARIZERS[name], jnp.array([1.0, 2.0])
    state = method.make(method.few).init(params)
    assert isinstance(state.loss_weights, jax.Array)
    assert state.loss_weights.shape == (method.few,)
    if isinstance(state, ValuesState):
        values = np.linspace(1.0, 2.0, method.few, dtype=np.float32)
        tx, extras = method.make(method.few), dict(method.extras(method.few))

        @jax.jit
        def step(state):
            _, moved = tx.update(params, state, params, values=values, **extras)
            return kdopt.loss_weights(state, values), moved

        used, moved = step(state)
        np.testing.assert_array_equal(moved.loss_weights, used)


@pytest.mark.parametrize("name", CASES)
def test_weights_of_a_batch_of_states(name):
    _, tx = CASES[name]
    states = jax.jit(jax.vmap(tx.init))(np.zeros((2, 3), np.float32))
    values = np.float32([[1, 2, 3], [2, 1, 0.5]])
    got = jax.jit(jax.vmap(kdopt.loss_weights))(states, values)
    weights, start = jax.jit(kdopt.loss_weights), tx.init(jnp.zeros(3))
    alone = [weights(start, row) for row in values]
    np.testing.assert_allclose(got, np.stack(alone), rtol=1e-6)


def test_a_checkpoint_holds_arrays_alone(tmp_path, standard):
    params = jnp.array([1.0, 2.0])
    tx = kdopt.dto_kd_amortized()
    update, values = jax.jit(tx.update), np.float32([2, 1])
    _, state = update(params, tx.init(params), params, values=values)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        shapes = jax.eval_shape(kdopt.dto_kd_amortized().init, params)
        restored = checkpointer.restore(tmp_path / "state", shapes)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
