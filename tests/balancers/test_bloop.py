"""Bloop: golden values of the authors' code, several losses, faults."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import first_step

# apple/ml-bloop c4626c6, src/bloop/optim.py, run in float64 with ema 0.1, lbda 0.5.
GOLDEN = {
    "zeros": [
        [0.4000001999996, 2.3000003999992, 1.0],
        [1.6840261776690688, 2.2411377500491247, 1.0],
        [3.0084619163230126, 1.991241281010825, 1.0],
        [4.298670084544009, 1.6070563423023199, 1.0],
    ],
    "grad": [
        [0.40000000199999997, 2.300000004, 1.0],
        [1.6161228384621336, 2.2111324335675158, 1.0],
        [2.874649099156987, 2.0808513165224602, 1.0],
        [4.174312345147283, 1.8639491930138155, 1.0],
    ],
}


@pytest.mark.parametrize("max_ratio", [None, 2.0])  # the code's two methods
@pytest.mark.parametrize("initial", GOLDEN)
def test_golden_values(x64, initial, max_ratio):
    tx = kdopt.bloop(
        weight=0.5, initial=initial, relative_eps=False, max_ratio=max_ratio
    )
    state, step = tx.init(jnp.zeros(3)), jax.jit(tx.update)
    for t, expected in enumerate(GOLDEN[initial]):
        grads = np.array([1.0 + t, 2, 0]), np.array([-1.0, 1 - t, 2])
        update, state = step(grads, state)
        np.testing.assert_allclose(update, expected, rtol=1e-12)


def test_auxiliary_gradients_leave_the_mean_alone(x64):
    rng = np.random.default_rng(0)
    tx = kdopt.bloop(num_losses=4, weight=1.0, eps=0.0)
    state, step = tx.init(jnp.zeros(8)), jax.jit(tx.update)
    for _ in range(10):
        grads = tuple(rng.normal(size=(4, 8)))
        update, state = jax.device_get(step(grads, state))
        extra = update - grads[0]
        np.testing.assert_allclose(extra @ state.trace, 0, atol=1e-12)
        plain = sum(grads[1:])
        part = (plain @ state.trace) / (state.trace @ state.trace) * state.trace
        np.testing.assert_allclose(extra, plain - part, atol=1e-12)


def test_bound_of_the_coefficient(x64):
    task, other = np.array([0.1, 0.0]), np.array([1.0, 1.0])
    for bound, expected in ((None, 0.0), (2.0, 0.8)):
        tx = kdopt.bloop(weight=1.0, eps=0.0, max_ratio=bound)
        update, _ = first_step(tx, (task, other))
        np.testing.assert_allclose(update - task, [expected, 1], atol=1e-12)


def test_an_absent_task_leaves_the_mean_as_it_is():
    tx = kdopt.bloop(weight=1.0)
    step = jax.jit(lambda g, s, here: tx.update(g, s, present=here))
    task, other = np.array([1.0, 0.0]), np.array([1.0, 1.0])
    _, state = step((task, other), tx.init(jnp.zeros(2)), np.array([True, True]))
    update, after = step((other, other), state, np.array([False, True]))
    np.testing.assert_array_equal(after.trace, state.trace)
    np.testing.assert_allclose(update, [0, 1], atol=1e-6)
