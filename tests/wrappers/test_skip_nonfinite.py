"""skip_nonfinite: hold everything, then give up."""

import jax
import numpy as np
import optax

import kdopt
from tests.wrappers._trees import PARAMS, draw

VALUES = np.float32([1, 2])


def test_skip_nonfinite_around_accumulate_leaves_one_batch_out(standard):
    tx = kdopt.skip_nonfinite(kdopt.accumulate(kdopt.linear([1.0, 1.0]), 2), 5)
    state, update = jax.jit(tx.init)(PARAMS), jax.jit(tx.update)
    bad = jax.tree.map(lambda x: x * np.float32(np.nan), draw(1))
    for row in (draw(0), bad, draw(2)):
        updates, state = update(row, state, PARAMS)
    good = (*draw(0), *draw(2))
    expected = jax.tree.map(lambda *x: sum(x) / 2, *good)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4), updates, expected)


def test_skip_nonfinite_holds_everything_and_gives_up(standard):
    tx = kdopt.skip_nonfinite(optax.chain(kdopt.dot(), optax.adam(0.1)), 2)
    update = jax.jit(tx.update)
    _, state = update(draw(0), tx.init(PARAMS), PARAMS, values=VALUES)
    bad = draw(1)
    bad[1]["head"][0] = np.inf
    held = state
    for i in range(2):
        updates, held = update(bad, held, PARAMS, values=VALUES)
        assert not any(np.any(u) for u in jax.tree.leaves(updates))
        assert (held.consecutive, held.skipped) == (i + 1, i + 1)
    jax.tree.map(np.testing.assert_array_equal, held.inner, state.inner)
    updates, _ = update(bad, held, PARAMS, values=VALUES)
    assert not np.all(np.isfinite(updates["head"]))
    fine, after = update(draw(2), held, PARAMS, values=VALUES)
    expected, _ = update(draw(2), state, PARAMS, values=VALUES)
    jax.tree.map(np.testing.assert_array_equal, fine, expected)
    assert (after.consecutive, after.skipped) == (0, 2)
    _, after = update(draw(2), after, PARAMS, values=VALUES * np.float32([np.nan, 1]))
    assert after.skipped == 3
