"""``each``: an ordinary transform on the gradient of every loss."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from tests import _samplers
from tests.balancers._inputs import first_step

pytestmark = pytest.mark.usefixtures("standard")


def steps(count):
    return [
        _samplers.trees(_samplers.generic(seed, 2), jnp.float32)
        for seed in range(count)
    ]


def test_each_equals_the_transforms_one_by_one():
    parts = (optax.scale_by_adam(), optax.trace(0.9))
    tx, params = kdopt.each(*parts), steps(1)[0][0]
    state, alone = tx.init(params), [part.init(params) for part in parts]
    update, *singles = (jax.jit(t.update) for t in (tx, *parts))
    for grads in steps(2):
        got, state = update(grads, state, params)
        for i, single in enumerate(singles):
            expected, alone[i] = single(grads[i], alone[i], params)
            chex.assert_trees_all_close(got[i], expected)
    chex.assert_trees_all_equal(state, tuple(alone))


def test_clips_each_gradient_for_itself():
    tx = kdopt.each(optax.clip_by_global_norm(1.0), optax.clip_by_global_norm(1.0))
    grads = (np.float32([3, 4]), np.float32([0.3, 0.4]))
    got, _ = first_step(tx, grads)
    chex.assert_trees_all_close(got, (grads[0] / 5, grads[1]), rtol=1e-6)


def test_extras_reach_the_parts_that_take_them():
    def init_fn(params):
        return optax.EmptyState()

    def update_fn(updates, state, params=None, *, factor, **extra):
        return jax.tree.map(lambda u: factor * u, updates), state

    scaling = optax.GradientTransformationExtraArgs(init_fn, update_fn)
    tx = kdopt.each(scaling, optax.identity())
    one = jnp.ones(1)
    got, _ = tx.update((one, one), tx.init(one), factor=3.0)
    chex.assert_trees_all_equal(got, (3 * one, one))


def test_goes_before_a_balancer_in_a_jitted_chain():
    tx = optax.chain(
        kdopt.each(optax.scale(2.0), optax.identity()), kdopt.linear([1.0, 1.0])
    )
    (grads,) = steps(1)
    got, _ = jax.jit(tx.update)(grads, tx.init(grads[0]), grads[0])
    chex.assert_trees_all_close(got, jax.tree.map(lambda t, d: 2 * t + d, *grads))


def test_no_transform_is_refused():
    with pytest.raises(ValueError, match="one transform per loss, got none"):
        kdopt.each()


def test_wrong_number_of_gradients():
    tx = kdopt.each(optax.identity(), optax.identity())
    with pytest.raises(ValueError, match=r"Expected 2 gradient trees.*got 3"):
        tx.update((jnp.ones(1),) * 3, tx.init(jnp.ones(1)))
