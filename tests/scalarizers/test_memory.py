"""Faults and absent losses in the scalarizers that remember; golden values."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt

VALUES = [[2.0, 1, 0.5], [1.8, 0.5, 0.5], [1.5, 0.4, 0.45], [1.4, 0.3, 0.2]]
METHODS = {
    "slaw": lambda: kdopt.slaw(num_losses=3),
    "relobralo": lambda: kdopt.relobralo(num_losses=3, alpha=0.9),
    "relobralo_random": lambda: kdopt.relobralo(num_losses=3, key=jax.random.key(0)),
    "lagrangian": lambda: kdopt.lagrangian(0.4, num_losses=3, proportional=1.0),
}


def run(tx, values, present=None):
    params, step = jnp.zeros(2), jax.jit(tx.update)
    state, weights = tx.init(params), []
    for row in values:
        _, state = step(params, state, values=jnp.asarray(row), present=present)
        weights.append(state.loss_weights)
    return np.array(weights), state


@pytest.mark.parametrize("name", METHODS)
def test_a_faulty_step_is_held_and_counted(name):
    tx = METHODS[name]()
    _, state = run(tx, VALUES)
    _, after = run(tx, [*VALUES, [1.0, np.nan, 1.0]])
    assert after.notfinite_count == 1
    chex.assert_trees_all_equal(after._replace(notfinite_count=np.int32(0)), state)


@pytest.mark.parametrize("name", METHODS)
def test_what_an_absent_loss_remembers_stays(name):
    tx, params = METHODS[name](), jnp.zeros(2)
    _, state = run(tx, VALUES)
    step, mask = jax.jit(tx.update), np.array([True, True, False])
    _, after = step(params, state, values=np.float32([1, 0.2, 9]), present=mask)
    for old, new in zip(
        jax.tree.leaves(state.inner), jax.tree.leaves(after.inner), strict=True
    ):
        if jnp.shape(old) == (3,):
            assert new[2] == old[2]
