"""skip_nonfinite: hold everything, then give up."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import kdopt

PARAMS = {"head": jnp.zeros(2), "trunk": jnp.zeros((2, 2))}


def _grads(seed, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(seed), 4)
    return tuple(
        {
            "head": jax.random.normal(keys[i], (2,), dtype),
            "trunk": jax.random.normal(keys[i + 2], (2, 2), dtype),
        }
        for i in range(2)
    )


VALUES = jnp.array([1.0, 2.0])


def test_skip_nonfinite_around_accumulate_leaves_one_batch_out(standard):
    tx = kdopt.skip_nonfinite(kdopt.accumulate(kdopt.linear([1.0, 1.0]), 2), 5)
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    bad = jax.tree.map(lambda x: x * jnp.nan, _grads(1))
    for row in (_grads(0), bad, _grads(2)):
        updates, state = update(row, state, PARAMS)
    good = (*_grads(0), *_grads(2))
    expected = jax.tree.map(lambda *x: sum(x) / 2, *good)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4), updates, expected)


def test_skip_nonfinite_holds_everything_and_gives_up(standard):
    tx = kdopt.skip_nonfinite(optax.chain(kdopt.dot(), optax.adam(0.1)), 2)
    update = jax.jit(tx.update)
    _, state = update(_grads(0), tx.init(PARAMS), PARAMS, values=VALUES)
    bad = _grads(1)
    bad[1]["head"] = bad[1]["head"].at[0].set(jnp.inf)
    held = state
    for i in range(2):
        updates, held = update(bad, held, PARAMS, values=VALUES)
        assert not any(jnp.any(u) for u in jax.tree.leaves(updates))
        assert (held.consecutive, held.skipped) == (i + 1, i + 1)
    jax.tree.map(np.testing.assert_array_equal, held.inner, state.inner)
    updates, _ = update(bad, held, PARAMS, values=VALUES)
    assert not jnp.all(jnp.isfinite(updates["head"]))
    fine, after = update(_grads(2), held, PARAMS, values=VALUES)
    expected, _ = update(_grads(2), state, PARAMS, values=VALUES)
    jax.tree.map(np.testing.assert_array_equal, fine, expected)
    assert (after.consecutive, after.skipped) == (0, 2)
    _, after = update(_grads(2), after, PARAMS, values=VALUES.at[0].set(jnp.nan))
    assert after.skipped == 3
