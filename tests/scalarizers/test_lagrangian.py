"""lagrangian: golden values of Cooper's controller, and constrained minima."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests.scalarizers.test_memory import run

ERRORS = [1.0, 0.5, -0.2, -0.4, 0.3]
# cooper-org/cooper 30b158e, nupi_optimizer.py: lr 0.1, Kp 2, Ki 1.
GOLDEN = {
    ("plain", 0.0): [0.1, 0.25, 0.09, 0.01, 0.18],
    ("plain", 0.5): [0.1, 0.2, 0.135, 0.0525, 0.13125],
    ("zeros", 0.0): [0.3, 0.25, 0.09, 0.01, 0.18],
    ("zeros", 0.5): [0.2, 0.25, 0.16, 0.065, 0.1375],
}


@pytest.mark.parametrize(("start", "smoothing"), GOLDEN)
def test_golden_values(x64, start, smoothing):
    tx = kdopt.lagrangian(
        2.0, learning_rate=0.1, proportional=2.0, smoothing=smoothing, start=start
    )
    weights, _ = run(tx, [[7.0, 2 + e] for e in ERRORS])
    expected = GOLDEN[start, smoothing]
    np.testing.assert_allclose(weights[:, 1], expected, rtol=1e-6, atol=1e-7)
    assert np.all(weights[:, 0] == 1)


@pytest.mark.parametrize("proportional", [0.0, 5.0])
def test_finds_the_constrained_minimum(proportional):
    one, two = jnp.array([1.0, 0.0]), jnp.array([-1.0, 0.5])

    def losses_fn(x):
        return jnp.sum((x - one) ** 2), jnp.sum((x - two) ** 2)

    tx = kdopt.lagrangian(1.5, learning_rate=0.02, proportional=proportional)
    grad_fn = kdopt.value_and_weighted_grad(losses_fn)

    def step(carry, _):
        x, state = carry
        values, grads = grad_fn(x, weights=kdopt.loss_weights(state))
        _, state = tx.update(grads, state, x, values=values)
        return (x - 0.02 * grads, state), values

    start = jnp.array([2.0, 2.0])
    scan = jax.jit(lambda: jax.lax.scan(step, (start, tx.init(start)), length=4000))
    (x, _), values = scan()
    np.testing.assert_allclose(values[-1, 1], 1.5, atol=1e-3)
    away = one - two
    expected = two + away * 1.5**0.5 / jnp.linalg.norm(away)
    np.testing.assert_allclose(x, expected, atol=1e-3)


def test_a_loss_within_its_limit_has_no_weight():
    tx = kdopt.lagrangian([1.0, 5.0], num_losses=3, learning_rate=0.5)
    weights, _ = run(tx, [[1.0, 2.0, 3.0]] * 3)
    np.testing.assert_allclose(weights[-1], [1, 1.5, 0], rtol=1e-6)


def test_what_is_refused():
    with pytest.raises(ValueError, match="limits must be one number"):
        kdopt.lagrangian([1.0, 2.0])
    with pytest.raises(ValueError, match="start must be one of plain"):
        inspect.unwrap(kdopt.lagrangian)(1.0, start="slow")
