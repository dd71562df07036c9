"""DB-MTL: by hand over steps, equal lengths, bad steps, dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import GOLDEN


def test_three_steps_by_hand(x64):
    tx = kdopt.db_mtl(beta=0.9, beta_decay=0.5)
    state, update = tx.init(jnp.zeros(3)), jax.jit(tx.update)
    values, m = np.array([2.0, 0.5]), np.zeros((2, 3))
    for t in (1, 2, 3):
        matrix = GOLDEN * t
        u, state = update(tuple(matrix), state, values=values)
        beta = 0.9 / np.sqrt(t)
        m = beta * m + (1 - beta) * matrix / values[:, None]
        norms = np.linalg.norm(m, axis=1)
        np.testing.assert_allclose(u, (norms.max() / norms) @ m, rtol=1e-10)
    np.testing.assert_allclose(state.loss_weights, norms.max() / norms)


def test_a_bad_step_leaves_means_and_weights():
    tx = kdopt.db_mtl()
    grads = (np.ones(2), np.array([1.0, -1.0]))
    update = jax.jit(tx.update)
    _, state = update(grads, tx.init(jnp.zeros(2)), values=np.ones(2))
    bad = (grads[0] * np.nan, grads[1])
    for wrong in ((bad, np.ones(2)), (grads, np.array([np.inf, 1.0]))):
        _, after = jax.device_get(update(wrong[0], state, values=wrong[1]))
        assert after.notfinite_count == 1
        assert after.count == state.count
        for new, old in zip(after.traces, state.traces, strict=True):
            np.testing.assert_array_equal(new, old)
        np.testing.assert_array_equal(after.loss_weights, state.loss_weights)


def test_means_in_float32_and_update_in_the_dtype_of_the_gradients():
    params = {"w": np.zeros(4, jnp.bfloat16)}
    tx = kdopt.db_mtl(beta=0.5)
    grads = ({"w": np.ones(4, jnp.bfloat16)},) * 2
    step = jax.jit(lambda g, p: tx.update(g, tx.init(p), p, values=(1.0, 1.0)))
    update, state = step(grads, params)
    assert state.traces[0]["w"].dtype == jnp.float32
    assert update["w"].dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="needs the loss values"):
        tx.update(grads, state, params)
