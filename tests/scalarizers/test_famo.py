"""FAMO: its step, and its toy problem."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt

PARAMS = jnp.zeros(2)


def _losses_fn(x):
    return jnp.sum(x**2), 0.01 * jnp.sum((x - 1) ** 2)


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


def test_famo_takes_the_step_of_its_algorithm(standard):
    """One step by hand: Adam moves each logit by its learning rate."""
    tx = optax.chain(optax.sgd(0.1), kdopt.famo(weight_decay=0.0))
    params = np.float32([2, 3])

    @jax.jit
    def step(params):
        state = tx.init(params)
        values, grads = kdopt.value_and_weighted_grad(_losses_fn)(
            params, weights=lambda values: kdopt.loss_weights(state, values)
        )
        updates, state = tx.update(
            grads, state, params, values=values, value_fn=_losses_fn
        )
        after = jnp.stack(_losses_fn(params + updates))
        return values, grads, after, state[1].memory["logits"]

    values, grads, after, logits = map(np.asarray, step(params))
    np.testing.assert_allclose(
        grads,
        (0.5 * 2 * params / values[0] + 0.5 * 0.02 * (params - 1) / values[1])
        / (0.5 / values[0] + 0.5 / values[1]),
        rtol=1e-5,
    )
    fall = np.log(values) - np.log(after)
    # The one that fell more loses weight; the first Adam step is the learning rate.
    sign = np.sign(fall - np.mean(fall))
    np.testing.assert_allclose(logits, -0.025 * sign, rtol=1e-4)


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

    starts = np.float32([[-8.5, 7.5], [0, 0], [9, 9], [-7.5, -0.5], [9, -1]])
    ends = np.asarray(jax.jit(jax.vmap(run))(starts))
    np.testing.assert_allclose(ends[:, 1], -8.36, atol=0.1)
    assert np.max(np.abs(ends[:, 0])) < 2.5


def test_famo_needs_what_its_signal_needs():
    state = kdopt.famo().init(PARAMS)
    with pytest.raises(ValueError, match="needs params and value_fn="):
        kdopt.famo().update(PARAMS, state, PARAMS, values=(1.0, 2.0))
    with pytest.raises(ValueError, match="needs gram="):
        kdopt.famo(signal="gram").update(PARAMS, state, PARAMS, values=(1.0, 2.0))
