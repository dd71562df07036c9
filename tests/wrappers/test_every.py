"""every: nothing is computed in between."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

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


def test_every_computes_no_gram_in_between():
    """The weights change on steps 0, 3 and 6; the Gram sits inside the branch."""
    tx = kdopt.every(kdopt.min_norm(), 3)
    state, seen, step = tx.init(PARAMS), [], jax.jit(tx.update)
    for seed in range(7):
        grads = _grads(seed)
        update, state = step(grads, state, PARAMS)
        seen.append(kdopt.loss_weights(state))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6),
            update,
            kdopt.combine(grads, seen[-1]),
        )
    changed = [bool(jnp.any(a != b)) for a, b in itertools.pairwise(seen)]
    assert changed == [False, False, True, False, False, True]
    jaxpr = jax.make_jaxpr(tx.update)(_grads(0), tx.init(PARAMS), PARAMS).jaxpr
    names = [eqn.primitive.name for eqn in jaxpr.eqns]
    assert "cond" in names and "reduce_sum" not in names
