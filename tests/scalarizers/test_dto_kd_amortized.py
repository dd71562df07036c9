"""Amortised DTO-KD: signals by their formulas, and that it follows the exact form."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt

pytestmark = pytest.mark.usefixtures("x64", "standard")

GRAM = np.array([[2.0, -0.5], [-0.5, 1.0]])


@pytest.fixture
def params():
    return jnp.array([2.0, 3.0])


def with_logits(state, logits):
    return state._replace(memory=state.memory | {"logits": logits})


def softmax(x):
    return np.exp(x) / np.sum(np.exp(x))


def adam(slopes, learning_rate=0.1):
    """What Adam makes of a row of slopes, from zero."""
    logits, mean, square = np.zeros(2), np.zeros(2), np.zeros(2)
    for t, slope in enumerate(slopes, 1):
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        size = np.sqrt(square / (1 - 0.999**t)) + 1e-8
        logits = logits - learning_rate * mean / (1 - 0.9**t) / size
    return logits


def make(signal, **kwargs):
    return kdopt.dto_kd_amortized(0.1, weight_decay=0.0, signal=signal, **kwargs)


VALUES = np.array([[2.0, 1.0], [1.9, 0.7], [1.7, 0.5]])


def test_next_takes_the_fall_since_the_last_step(params):
    tx = make("next")
    state, slopes, logits = tx.init(params), [], np.zeros(2)
    step = jax.jit(tx.update)
    for t, values in enumerate(VALUES):
        update, state = step(params, state, params, values=values)
        np.testing.assert_array_equal(update, params)
        if t:
            fall, pi = np.log(VALUES[t - 1]) - np.log(values), softmax(logits)
            slopes.append(pi * (fall - pi @ fall))
            logits = adam(slopes)
        np.testing.assert_allclose(
            state.memory["logits"], logits, rtol=1e-9, atol=1e-12
        )
    # the distillation loss has fallen most, so that it lost weight
    assert state.memory["logits"][1] < state.memory["logits"][0]


def test_first_step_has_nothing_to_compare(params):
    tx = make("next")
    step = jax.jit(tx.update)
    _, state = step(params, tx.init(params), params, values=VALUES[0])
    np.testing.assert_allclose(state.memory["logits"], 0)
    assert state.notfinite_count == 0
    np.testing.assert_allclose(state.memory["log_gaps"], np.log(VALUES[0]))


def test_same_batch_compares_before_and_after_the_update(params):
    def value_fn(x):
        return jnp.array([jnp.sum(x**2), jnp.sum((x - 1) ** 2)])

    tx = make("same_batch")
    state, slopes, pi = tx.init(params), [], np.array([0.5, 0.5])

    @jax.jit
    def step(update, state):
        values, after = value_fn(params), value_fn(params + update)
        _, state = tx.update(update, state, params, values=values, value_fn=value_fn)
        return jnp.log(values / after), state

    for update in np.array([[-0.5, -0.1], [0.3, -1.5], [0.1, 0.0]]):
        fall, state = step(update, state)
        slopes.append(pi * (fall - pi @ fall))
        np.testing.assert_allclose(state.memory["logits"], adam(slopes), rtol=1e-8)
        pi = softmax(np.asarray(state.memory["logits"]))


def test_gram_takes_the_exact_slope(params):
    tx = make("gram")
    state, slopes, pi = tx.init(params), [], np.array([0.5, 0.5])
    step = jax.jit(tx.update)
    for values in VALUES:
        _, state = step(params, state, params, values=values, gram=GRAM)
        fall = GRAM / np.outer(values, values) @ pi
        slopes.append(pi * (fall - pi @ fall))
        np.testing.assert_allclose(state.memory["logits"], adam(slopes), rtol=1e-8)
        pi = softmax(np.asarray(state.memory["logits"]))


def test_gram_that_is_not_there_this_step(params):
    tx = make("gram")
    missing = np.full((2, 2), np.nan)
    _, state = jax.jit(tx.update)(
        params, tx.init(params), params, values=VALUES[0], gram=missing
    )
    np.testing.assert_allclose(state.memory["logits"], 0)
    assert state.notfinite_count == 0


def test_literal_is_the_printed_equation(params):
    """pi <- pi - lr (pi . l) l, under a softmax."""
    tx = make("literal")
    state, base, step = tx.init(params), np.zeros(2), jax.jit(tx.update)
    for values in VALUES:
        _, state = step(params, state, params, values=values)
        pi, logs = softmax(base), np.log(values)
        base = pi - 0.1 * (pi @ logs) * logs
        np.testing.assert_allclose(state.memory["logits"], base, rtol=1e-12)


def test_literal_contracts_to_equal_weights(params):
    tx = make("literal")
    state = with_logits(tx.init(params), np.log([0.99, 0.01]))
    seen, step = [], jax.jit(tx.update)
    for _ in range(3):
        _, state = step(params, state, params, values=np.ones(2))
        seen.append(softmax(np.asarray(state.memory["logits"]))[0])
    np.testing.assert_allclose(seen, [0.7271, 0.6117, 0.5556], atol=2e-3)


def test_weights_are_convex_and_divide_by_the_losses(params):
    tx = make("next", min_losses=(0.5, 0.0))
    state = with_logits(tx.init(params), np.array([1.0, 0.0]))
    raw = softmax(np.array([1.0, 0.0])) / np.array([1.5, 1.0])
    got = jax.jit(kdopt.loss_weights)(state, np.array([2.0, 1.0]))
    np.testing.assert_allclose(got, raw / np.sum(raw), rtol=1e-9)


def test_weight_decay_pulls_to_equal_weights(params):
    tx = kdopt.dto_kd_amortized(0.1, weight_decay=0.5)
    state = with_logits(tx.init(params), np.array([1.0, -1.0]))
    step = jax.jit(tx.update)
    for _ in range(40):
        _, state = step(params, state, params, values=VALUES[0])
    assert np.max(np.abs(state.memory["logits"])) < 0.2


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_bad_value_is_left_out(params, bad):
    """The next fall spans both steps."""
    tx = make("next")
    state, step = tx.init(params), jax.jit(tx.update)
    _, state = step(params, state, params, values=VALUES[0])
    _, held = step(params, state, params, values=np.array([bad, 1.0]))
    chex.assert_trees_all_equal(
        held._replace(notfinite_count=0), state._replace(notfinite_count=0)
    )
    assert held.notfinite_count == 1
    _, after = step(params, held, params, values=VALUES[1])
    _, straight = step(params, state, params, values=VALUES[1])
    chex.assert_trees_all_close(after.memory["logits"], straight.memory["logits"])


@pytest.mark.parametrize("signal", ["next", "same_batch", "gram"])
def test_follows_the_exact_weights(signal):
    """On a slow deterministic problem pi comes to that of the exact form."""
    matrix = np.diag([3.0, 1.0])

    def losses_fn(x):
        return 1 + x @ matrix @ x, 2 + 4 * jnp.sum((x - 1) ** 2)

    def value_fn(x):
        return jnp.stack(losses_fn(x))

    tx = optax.chain(
        optax.sgd(1e-4),
        kdopt.dto_kd_amortized(0.02, weight_decay=0.0, signal=signal),
    )
    weighted = kdopt.value_and_weighted_grad(losses_fn)
    each = kdopt.value_and_grads(losses_fn)

    def body(carry, _):
        x, state = carry
        values, grads = weighted(
            x, weights=lambda values: kdopt.loss_weights(state, values)
        )
        gram = kdopt.gram(each(x)[1])
        updates, state = tx.update(
            grads, state, x, values=values, value_fn=value_fn, gram=gram
        )
        return (optax.apply_updates(x, updates), state), None

    @jax.jit
    def run(start):
        carry = start, tx.init(start)
        (x, state), _ = jax.lax.scan(body, carry, length=1000)
        values, grads = each(x)
        exact = kdopt.dto_kd_weights(kdopt.gram(grads), values, rescale="convex")
        return kdopt.loss_weights(state, values), exact

    weights, exact = run(np.array([1.5, -1.0]))
    assert np.all(exact > 0.02)
    np.testing.assert_allclose(weights, exact, atol=0.03)


@pytest.mark.parametrize(
    ("kwargs", "extras", "message"),
    [
        ({"signal": "gram"}, {}, "needs gram="),
        ({"signal": "same_batch"}, {}, "needs params and value_fn="),
        ({"num_losses": 3}, {}, "Expected 3 loss values"),
    ],
)
def test_missing_extras(params, kwargs, extras, message):
    tx = kdopt.dto_kd_amortized(**kwargs)
    with pytest.raises(ValueError, match=message):
        tx.update(params, tx.init(params), params, values=VALUES[0], **extras)


def test_one_loss_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        kdopt.dto_kd_amortized(num_losses=1)


def test_the_directional_signal_is_exact(x64):
    """Behind plain descent it moves the logits as the Gram matrix does."""

    def losses_fn(x):
        return jnp.sum(x**4) + 1, jnp.sum((x - 1) ** 2) + 0.5, jnp.sum(jnp.cos(x)) + 9

    rate, logits = 0.05, np.array([0.4, -0.1, 0.2])
    settings = {"num_losses": 3, "weight_decay": 0.0}
    directional = optax.chain(
        optax.sgd(rate), kdopt.dto_kd_amortized(signal="directional", **settings)
    )
    exact = kdopt.dto_kd_amortized(signal="gram", **settings)

    @jax.jit
    def step(x):
        at = kdopt.linearize(losses_fn)(x)
        values, grads = kdopt.value_and_grads(losses_fn)(x)
        state, expected = directional.init(x), exact.init(x)
        state = (state[0], with_logits(state[1], jnp.asarray(logits)))
        expected = with_logits(expected, jnp.asarray(logits))
        gradient = at.gradient(kdopt.loss_weights(state, values))
        _, state = directional.update(
            gradient, state, x, values=values, slopes_fn=at.slopes
        )
        gram = kdopt.gram(grads)
        _, expected = exact.update(gradient, expected, x, values=values, gram=gram)
        # Adam's first step sees the sign alone; the moments see it all.
        moments = [optax.tree.get(s.inner, "mu") for s in (state[1], expected)]
        return values, *moments

    values, got, expected = map(np.asarray, step(np.array([0.3, -0.7, 1.2])))
    ratio = rate / np.sum(softmax(logits) / values)
    np.testing.assert_allclose(got / expected, ratio, rtol=1e-9)


def test_the_directional_signal_asks_for_slopes():
    tx = kdopt.dto_kd_amortized(signal="directional")
    with pytest.raises(ValueError, match="needs slopes_fn="):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), values=(1.0, 2.0))
