"""accumulate: one step on the mean."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from tests.wrappers._trees import PARAMS, draw


@pytest.mark.parametrize("period", [3, lambda step: 3])
def test_accumulate_is_one_step_on_the_mean(period, standard):
    inner = optax.chain(kdopt.dto_kd(), optax.adam(0.1))
    tx = kdopt.accumulate(inner, period)
    state, rows = jax.jit(tx.init)(PARAMS), [draw(seed) for seed in range(3)]
    update = jax.jit(tx.update)
    for i, row in enumerate(rows):
        values = np.float32([1 + i, 2])
        updates, state = update(row, state, PARAMS, values=values)
        if i < 2:
            assert not any(np.any(u) for u in jax.tree.leaves(updates))
            assert state.mini_step == i + 1
    mean = jax.tree.map(lambda *x: sum(x) / 3, *rows)
    expected, after = jax.jit(inner.update)(
        mean, inner.init(PARAMS), PARAMS, values=np.float32([2, 2])
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4), updates, expected)
    assert state.mini_step == 0 and state.full_steps == 1
    # Adam has counted one step, not three.
    counts = optax.tree.get_all_with_path(state.inner, "count")
    assert [int(c) for _, c in counts] == [1]
    np.testing.assert_allclose(
        kdopt.loss_weights(state), kdopt.loss_weights(after), rtol=1e-4
    )
    assert not any(np.any(g) for g in jax.tree.leaves(state.grads))


def test_accumulate_sums_half_precision_in_float32():
    """256 additions of 1 to 256 in bfloat16 would add nothing at all."""
    params = jnp.zeros(1, jnp.bfloat16)
    tx = kdopt.accumulate(kdopt.linear([1.0, 0.0]), 512)

    def step(state, g):
        updates, state = tx.update((g, g), state, params)
        return state, updates

    rows = np.repeat([256.0, 1.0], 256).astype(jnp.bfloat16)
    scan = jax.jit(lambda rows: jax.lax.scan(step, tx.init(params), rows)[1])
    last = np.asarray(scan(rows[:, None])[-1], np.float32)
    np.testing.assert_allclose(last, 128.5, rtol=4e-3)
