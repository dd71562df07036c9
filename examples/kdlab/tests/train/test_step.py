"""Optional parts of a step: averages, half precision, several seeds at once."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from _students import order, students, train
from kdlab.train.step import make_seeds_step, stack

pytestmark = pytest.mark.usefixtures("standard")

SEEDS = 3


def test_averaged_parameters_are_those_evaluated():
    pupils = students(ema=0.75)
    plan = pupils.plan("kd")
    average = jax.tree.map(np.array, pupils.state(plan, 0).params)
    for steps in (1, 2):
        state, _ = train(pupils, steps=steps)
        average = optax.incremental_update(state.params, average, 0.25)
    chex.assert_trees_all_close(state.ema, average, rtol=1e-6)
    plain, _ = train(students(), steps=2)
    chex.assert_trees_all_equal(state.params, plain.params)
    tested = pupils.problem.network(state).params
    chex.assert_trees_all_equal(tested, state.ema["network"])


def test_half_precision_keeps_the_state_in_float32():
    full, expected = train(students())
    half, found = train(students(dtype="bfloat16"))
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((half.params, half.opt_state))}
    assert dtypes <= {jnp.float32.dtype, jnp.int32.dtype}
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours["loss/task"], theirs["loss/task"], rtol=1e-2)
        assert ours["loss/task"] != theirs["loss/task"]
    del full


@pytest.mark.parametrize("method", ["kd", "dto_kd", "dto_kd_shared"])
def test_seeds_at_once_equal_those_alone(method):
    pupils = students()
    plan, problem = pupils.plan(method), pupils.problem
    step = make_seeds_step(problem, plan)
    states = stack([pupils.state(plan, seed) for seed in range(SEEDS)])
    data = stack([pupils.data(seed) for seed in range(SEEDS)])
    orders = [order(pupils, seed) for seed in range(SEEDS)]
    found = []
    for _ in range(2):
        batch = stack([tuple(next(one)) for one in orders])
        states, metrics = step(states, data, problem.teacher, *batch)
        found.append(metrics)
    for seed in range(SEEDS):
        alone, expected = train(pupils, method, steps=2, seed=seed)
        for ours, theirs in zip(found, expected, strict=True):
            for name in theirs:
                np.testing.assert_allclose(ours[name][seed], theirs[name], 1e-5, 1e-5)
        own = jax.tree.map(lambda x, i=seed: x[i], states.params)
        chex.assert_trees_all_close(own, alone.params, rtol=1e-5, atol=1e-6)
