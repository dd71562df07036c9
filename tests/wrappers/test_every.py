"""every: nothing is computed in between."""

import itertools

import jax
import numpy as np

import kdopt
from tests.wrappers._trees import PARAMS, draw


def test_every_computes_no_gram_in_between():
    """The weights change on steps 0, 3 and 6; the Gram sits inside the branch."""
    tx = kdopt.every(kdopt.min_norm(), 3)
    step, combine = jax.jit(tx.update), jax.jit(kdopt.combine)
    state, seen = tx.init(PARAMS), []
    for seed in range(7):
        grads = draw(seed)
        update, state = step(grads, state, PARAMS)
        seen.append(np.asarray(kdopt.loss_weights(state)))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6),
            update,
            combine(grads, seen[-1]),
        )
    changed = [bool(np.any(a != b)) for a, b in itertools.pairwise(seen)]
    assert changed == [False, False, True, False, False, True]
    jaxpr = jax.make_jaxpr(tx.update)(draw(0), tx.init(PARAMS), PARAMS).jaxpr
    names = [eqn.primitive.name for eqn in jaxpr.eqns]
    assert "cond" in names and "reduce_sum" not in names
