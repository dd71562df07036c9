"""Scalarizers that learn: log-scales, windows, logits under a softmax."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from kdopt import scalarizers

PARAMS = jnp.zeros(2)


def _run(tx, rows):
    state = tx.init(PARAMS)

    def step(state, values):
        updates, state = tx.update(PARAMS, state, PARAMS, values=values)
        return state, updates

    return jax.lax.scan(step, state, rows)[0]


def test_uncertainty_weights_are_the_gradient_of_its_objective():
    values, scales = jnp.array([2.0, 0.3]), jnp.array([0.1, -1.0])

    def objective(values, s):
        return jnp.sum(jnp.exp(-s) * values / 2 + s / 2)

    expected = jax.grad(objective)(values, scales)
    weights = scalarizers.uncertainty_weights(scales)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_imtl_l_weights_are_the_gradient_of_its_objective():
    values, scales = jnp.array([2.0, 0.3]), jnp.array([0.1, -1.0])

    def objective(values, s):
        return jnp.sum(jnp.exp(s) * values - s)

    expected = jax.grad(objective)(values, scales)
    np.testing.assert_allclose(scalarizers.imtl_l_weights(scales), expected, rtol=1e-6)


@pytest.mark.parametrize(("make", "factor"), [("uncertainty", 0.5), ("imtl_l", 1.0)])
def test_learned_scales_tend_to_the_inverse_of_losses_at_rest(make, factor, standard):
    values = jnp.array([4.0, 0.5])
    state = _run(getattr(kdopt, make)(0.02), jnp.tile(values, (600, 1)))
    weights = kdopt.loss_weights(state)
    np.testing.assert_allclose(weights, factor / values, rtol=1e-3)


def test_uncertainty_is_half_of_imtl_l(standard):
    """Adam sees no common factor of the slopes, so only the weights differ."""
    rows = jax.random.uniform(jax.random.key(0), (20, 2), minval=0.5, maxval=3.0)
    half = kdopt.loss_weights(_run(kdopt.uncertainty(0.05), rows))
    full = kdopt.loss_weights(_run(kdopt.imtl_l(0.05), rows))
    np.testing.assert_allclose(2 * half, full, rtol=1e-5)


@pytest.mark.parametrize(
    "tx",
    [kdopt.uncertainty(), kdopt.imtl_l(), kdopt.dwa(window=1), kdopt.softadapt()],
    ids=["uncertainty", "imtl_l", "dwa", "softadapt"],
)
def test_a_step_that_is_not_finite_is_left_out(tx, standard):
    rows = jnp.array([[1.0, 2.0], [2.0, 1.0], [jnp.nan, 1.0], [1.0, 1.5]])
    with_fault = _run(tx, rows)
    without = _run(tx, rows[jnp.array([0, 1, 3])])
    np.testing.assert_allclose(
        kdopt.loss_weights(with_fault), kdopt.loss_weights(without), rtol=1e-6
    )
    assert with_fault.notfinite_count == 1


def test_dwa_by_hand():
    """Epochs of two steps; ratios 2/4 and 3/2 with T = 2."""
    rows = jnp.array([[3.0, 1.0], [5.0, 3.0], [1.0, 2.0], [3.0, 4.0]])
    state = _run(kdopt.dwa(window=2), rows)
    raw = np.exp(np.array([0.5, 1.5]) / 2)
    np.testing.assert_allclose(state.loss_weights, 2 * raw / raw.sum(), rtol=1e-6)
    early = _run(kdopt.dwa(window=2), rows[:3])
    np.testing.assert_array_equal(early.loss_weights, [1.0, 1.0])


def test_dwa_survives_a_loss_of_zero():
    weights = scalarizers.dwa_weights(jnp.array([1.0, 0.0]), jnp.array([0.0, 0.0]))
    np.testing.assert_array_equal(weights, [1.0, 1.0])


@pytest.mark.parametrize("variant", ["plain", "normalized", "loss_weighted"])
def test_softadapt_by_hand(variant):
    values, previous = np.array([2.0, 1.0]), np.array([2.5, 3.0])
    change = values - previous
    if variant == "normalized":
        change = change / np.abs(change).sum()
    raw = np.exp(0.1 * change) * (values if variant == "loss_weighted" else 1)
    got = scalarizers.softadapt_weights(
        jnp.asarray(values, jnp.float32),
        jnp.asarray(previous, jnp.float32),
        variant=variant,
    )
    np.testing.assert_allclose(got, raw / raw.sum(), rtol=1e-6)


def test_bad_arguments_say_what_to_do():
    with pytest.raises(ValueError, match="window must be a number of steps"):
        kdopt.dwa(window=0)
    # Unwrapped: the type checker of the tests would see these two first.
    with pytest.raises(ValueError, match="variant must be one of"):
        inspect.unwrap(kdopt.softadapt)(variant="best")
    with pytest.raises(ValueError, match="num_losses must be an int"):
        kdopt.softadapt(num_losses=0)
    with pytest.raises(ValueError, match="signal must be one of"):
        inspect.unwrap(kdopt.famo)(signal="literal")


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


def _losses_fn(x):
    return jnp.sum(x**2), 0.01 * jnp.sum((x - 1) ** 2)


def test_famo_takes_the_step_of_its_algorithm(standard):
    """One step by hand: Adam moves each logit by its learning rate."""
    tx = optax.chain(optax.sgd(0.1), kdopt.famo(weight_decay=0.0))
    params = jnp.array([2.0, 3.0])
    state = tx.init(params)
    values, grads = kdopt.value_and_weighted_grad(_losses_fn)(
        params, weights=lambda values: kdopt.loss_weights(state, values)
    )
    np.testing.assert_allclose(
        grads,
        (0.5 * 2 * params / values[0] + 0.5 * 0.02 * (params - 1) / values[1])
        / (0.5 / values[0] + 0.5 / values[1]),
        rtol=1e-5,
    )
    updates, state = tx.update(grads, state, params, values=values, value_fn=_losses_fn)
    after = jnp.stack(_losses_fn(params + updates))
    fall = jnp.log(values) - jnp.log(after)
    # The one that fell more loses weight; the first Adam step is the learning rate.
    sign = jnp.sign(fall - jnp.mean(fall))
    np.testing.assert_allclose(state[1].logits, -0.025 * sign, rtol=1e-4)


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


def _toy_losses(x):
    """The two-loss toy problem of github.com/Cranial-XIX/FAMO, 0a6ad06, scale 0.1."""
    x1, x2 = x
    f1 = jnp.log(jnp.maximum(jnp.abs(0.5 * (-x1 - 7) - jnp.tanh(-x2)), 5e-6)) + 6
    f2 = jnp.log(jnp.maximum(jnp.abs(0.5 * (3 - x1) + jnp.tanh(-x2) + 2), 5e-6)) + 6
    up, down = jnp.tanh(x2 / 2), jnp.tanh(-x2 / 2)
    # At 0 the slope must be that of torch.clamp, 1, or the second start stays there.
    up, down = jnp.where(up >= 0, up, 0), jnp.where(down >= 0, down, 0)
    s1 = ((7 - x1) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    s2 = ((-x1 - 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    return 0.1 * (f1 * up + s1 * down), f2 * up + s2 * down


def test_famo_solves_its_toy_problem_from_every_start(standard):
    """Published: FAMO reaches the Pareto set from all five starts, in its middle.

    The set is x2 = -8.36, |x1| <= 7.1; the middle, where both losses fall at the same
    rate, is x1 = 0. Adam on the mean fails from one start and ends at -5.7.
    """
    tx = optax.chain(
        optax.adam(1e-3), kdopt.famo(weight_decay=0.0, min_losses=[-2.1, -21.0])
    )
    grad_fn = kdopt.value_and_weighted_grad(_toy_losses)

    def step(carry, _):
        x, state = carry
        values, grads = grad_fn(x, weights=lambda v: kdopt.loss_weights(state, v))
        updates, state = tx.update(grads, state, x, values=values, value_fn=_toy_losses)
        return (optax.apply_updates(x, updates), state), None

    def run(start):
        return jax.lax.scan(step, (start, tx.init(start)), length=50_000)[0][0]

    starts = jnp.array([[-8.5, 7.5], [0.0, 0.0], [9.0, 9.0], [-7.5, -0.5], [9.0, -1.0]])
    ends = jax.jit(jax.vmap(run))(starts)
    np.testing.assert_allclose(ends[:, 1], -8.36, atol=0.1)
    assert jnp.max(jnp.abs(ends[:, 0])) < 2.5


def test_famo_needs_what_its_signal_needs():
    state = kdopt.famo().init(PARAMS)
    with pytest.raises(ValueError, match="needs params and value_fn="):
        kdopt.famo().update(PARAMS, state, PARAMS, values=(1.0, 2.0))
    with pytest.raises(ValueError, match="needs gram="):
        kdopt.famo(signal="gram").update(PARAMS, state, PARAMS, values=(1.0, 2.0))


def test_linear_follows_its_schedules():
    tx = scalarizers.linear([0.5, optax.linear_schedule(0.0, 1.0, 2)])
    state = tx.init(PARAMS)
    seen = [kdopt.loss_weights(state)]
    for _ in range(3):
        updates, state = tx.update(PARAMS, state, PARAMS)
        seen.append(kdopt.loss_weights(state))
    assert updates is PARAMS
    np.testing.assert_allclose(jnp.stack(seen)[:, 1], [0.0, 0.5, 1.0, 1.0])
    np.testing.assert_allclose(jnp.stack(seen)[:, 0], 0.5)


def test_linear_agrees_with_the_balancer_of_the_same_name():
    _, per_loss = kdopt.value_and_grads(_losses_fn)(jnp.array([2.0, 3.0]))
    balancer = kdopt.linear([0.2, 0.8])
    expected, _ = balancer.update(per_loss, balancer.init(PARAMS))
    state = scalarizers.linear(jnp.array([0.2, 0.8])).init(PARAMS)
    _, got = kdopt.value_and_weighted_grad(_losses_fn)(
        jnp.array([2.0, 3.0]), weights=kdopt.loss_weights(state)
    )
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    for bad in ([], jnp.ones((2, 2))):
        with pytest.raises(ValueError, match="list of K numbers or schedules"):
            scalarizers.linear(bad)


def test_random_weights_are_new_at_every_step():
    tx = scalarizers.random_weights(jax.random.key(0), num_losses=3)

    def step(state, _):
        return tx.update(PARAMS, state)[1], state.loss_weights

    _, weights = jax.lax.scan(step, tx.init(PARAMS), length=500)
    np.testing.assert_allclose(jnp.sum(weights, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(jnp.mean(weights, axis=0), 1 / 3, atol=0.05)
    assert len(np.unique(np.asarray(weights[:, 0]))) > 490
