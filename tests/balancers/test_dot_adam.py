"""DOT for other optimisers: with delta 0 they are the original ones."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from tests.balancers._inputs import first_step

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}


MASK = {"w": True, "b": False}


def _schedule(count):
    return 0.1 / (1.0 + count)


PAIRS = {
    "adam": (kdopt.dot_adam(0.1, delta=0.0), optax.adam(0.1)),
    "nadam": (
        kdopt.dot_adam(_schedule, 0.8, 0.95, delta=0.0, nesterov=True),
        optax.adam(_schedule, 0.8, 0.95, nesterov=True),
    ),
    "adamw": (
        kdopt.dot_adamw(0.1, weight_decay=0.3, mask=MASK, delta=0.0),
        optax.adamw(0.1, weight_decay=0.3, mask=MASK),
    ),
    "lion": (
        kdopt.dot_lion(0.1, weight_decay=0.3, delta=0.0),
        optax.lion(0.1, weight_decay=0.3),
    ),
    "lars": (
        kdopt.dot_lars(
            _schedule,
            0.3,
            MASK,
            trust_ratio_mask=lambda params: MASK,
            momentum=0.8,
            nesterov=True,
            delta=0.0,
        ),
        optax.lars(
            _schedule, 0.3, MASK, trust_ratio_mask=MASK, momentum=0.8, nesterov=True
        ),
    ),
    "lars_defaults": (kdopt.dot_lars(0.1, delta=0.0), optax.lars(0.1)),
}


def _grads(seed):
    rng = np.random.default_rng(seed)
    return tuple(
        {"w": rng.normal(size=(2, 3)), "b": rng.normal(size=3)} for _ in range(2)
    )


@pytest.mark.parametrize("name", PAIRS)
def test_no_delta_is_the_optimiser_on_the_summed_gradient(name, standard):
    split, plain = PAIRS[name]

    @jax.jit
    def both(params, states, grads):
        total = jax.tree.map(jnp.add, *grads)
        one, a = split.update(grads, states[0], params)
        two, b = plain.update(total, states[1], params)
        return optax.apply_updates(params, one), (a, b), one, two

    params, states = PARAMS, (split.init(PARAMS), plain.init(PARAMS))
    for seed in range(5):
        params, states, one, two = both(params, states, _grads(seed))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, 2e-4, 1e-7), one, two
        )


def test_adam_moments_by_hand(standard):
    """Two steps of a scalar: each moment has its own decay and its own correction."""
    tx = kdopt.scale_by_dot_adam(0.8, 0.9, delta=0.1, eps=0.0)
    rows = [(1.0, 3.0), (2.0, -1.0)]
    step, state, m, nu = jax.jit(tx.update), tx.init(jnp.zeros(1)), np.zeros(2), 0.0
    betas = np.array([0.7, 0.9])
    for t, row in enumerate(rows, start=1):
        update, state = step(tuple(np.full(1, g) for g in row), state)
        m = betas * m + (1 - betas) * np.array(row)
        nu = 0.9 * nu + 0.1 * sum(row) ** 2
        expected = np.sum(m / (1 - betas**t)) / np.sqrt(nu / (1 - 0.9**t))
        np.testing.assert_allclose(update, expected, rtol=1e-5)


@pytest.mark.parametrize("core", [kdopt.scale_by_dot_adam, kdopt.scale_by_dot_lion])
def test_distillation_is_remembered_for_longer(core, standard):
    """One pulse in each gradient: the task forgets, distillation does not."""
    tx = core()
    step, state = jax.jit(tx.update), tx.init(jnp.zeros(1))
    _, state = step((np.ones(1), np.ones(1)), state)
    first = np.ravel(state.mu)
    for _ in range(20):
        _, state = step((np.zeros(1), np.zeros(1)), state)
    left = np.ravel(state.mu) / first
    assert left[1] > left[0] * 1.1


@pytest.mark.parametrize("name", PAIRS)
def test_half_precision_stays_and_zero_gradients_are_finite(name, standard):
    split, _ = PAIRS[name]
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    zeros = jax.tree.map(np.zeros_like, params)
    step = jax.jit(lambda g, p: split.update(g, split.init(p), p))
    updates, state = step((zeros, zeros), params)
    jax.tree.map(lambda u: np.testing.assert_equal(u.dtype, jnp.bfloat16), updates)
    assert all(np.all(np.isfinite(np.asarray(u, float))) for u in updates.values())
    before = jax.tree.map(jnp.shape, jax.eval_shape(split.init, params))
    assert jax.tree.map(jnp.shape, state) == before


def test_what_one_loss_reaches_moves_with_plain_memory(standard):
    reach = ({"w": True, "b": True}, {"w": True, "b": False})
    tx = kdopt.scale_by_dot_adam(0.8, delta=0.1, reach=reach)
    ones = jax.tree.map(np.ones_like, PARAMS)
    _, state = jax.jit(tx.update)((ones, ones), tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(state.mu[0]["b"], 0.2, rtol=1e-5)
    np.testing.assert_allclose(state.mu[0]["w"], 0.3, rtol=1e-5)


@pytest.mark.parametrize("factory", [kdopt.scale_by_dot_adam, kdopt.scale_by_dot_lion])
def test_an_element_that_is_not_finite_keeps_its_moments(factory):
    tx = factory()
    good = (np.ones(2), np.ones(2))
    step = jax.jit(tx.update)
    _, state = jax.device_get(step(good, tx.init(jnp.zeros(2))))
    bad = (np.array([np.nan, 1.0]), good[1])
    updates, held = jax.device_get(step(bad, state))
    assert np.isnan(updates[0]) and np.isfinite(updates[1])
    assert held.mu[0][0] == state.mu[0][0] and held.mu[0][1] != state.mu[0][1]
    updates, _ = step(good, held)
    assert np.all(np.isfinite(updates))


def test_a_second_moment_that_half_precision_cannot_hold_is_left_out(standard):
    huge = np.full(1, 3e4, np.float16)
    _, state = first_step(kdopt.scale_by_dot_adam(), (huge, huge))
    assert np.all(np.isfinite(state.nu))
