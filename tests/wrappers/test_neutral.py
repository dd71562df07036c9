"""A wrapper with a neutral setting is the method that it wraps, or refuses it.

One method of each engine: a wrapper sees the engine alone.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from tests import _methods

BALANCERS = {
    name: _methods.METHOD[name] for name in _methods.one_per_engine(_methods.BALANCERS)
}

NEUTRAL = {
    "accumulate": lambda tx, k: kdopt.accumulate(tx, 1, num_losses=k),
    "each": lambda tx, k: optax.chain(kdopt.each(*[optax.identity()] * k), tx),
    "ema": lambda tx, k: kdopt.ema(tx, decay=0.0),
    "every": lambda tx, k: kdopt.every(tx, 1),
    "monitor": lambda tx, k: kdopt.monitor(tx, num_losses=k),
    "partition": lambda tx, k: kdopt.partition({"all": tx}, "all"),
    "per_layer": lambda tx, k: kdopt.per_layer(tx, depth=0),
    "restrict": lambda tx, k: kdopt.restrict(tx, True),
    "skip_nonfinite": lambda tx, k: kdopt.skip_nonfinite(tx, 0),
}
NEED_WEIGHTS = {"ema", "every"}


def combinations():
    """Every method in every wrapper; by default each method in every fifth one."""
    for i, name in enumerate(BALANCERS):
        for j, wrapper in enumerate(NEUTRAL):
            marks = [] if (i + j) % 5 == 0 else [pytest.mark.slow]
            yield pytest.param(name, wrapper, marks=marks)


def params():
    return {"a": jnp.array([1.0, 1.5, 2.0]), "b": jnp.array([[1.0, 1.0], [1.0, 1.0]])}


def batch(k, seed):
    rng = np.random.default_rng(seed)

    def tree():
        return jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape)), params())

    return tuple(tree() for _ in range(k)), np.float32(rng.uniform(1, 2, k))


def train(tx, method, k):
    @jax.jit
    def step(grads, state, values):
        return tx.update(grads, state, params(), values=values, **method.extras(k))

    state = jax.jit(tx.init)(params())
    updates = []
    for seed in range(3):
        grads, values = batch(k, seed)
        update, state = step(grads, state, values)
        updates.append(update)
    return updates, state


@functools.cache
def alone(name):
    method = BALANCERS[name]
    return train(method.make(method.few), method, method.few)


@pytest.mark.parametrize(("name", "wrapper"), list(combinations()))
def test_a_neutral_wrapper_changes_nothing(name, wrapper, standard):
    method = BALANCERS[name]
    k, (expected, state) = method.few, alone(name)
    tx = method.make(k)
    holds_weights = hasattr(state, "loss_weights") and not hasattr(state, "traces")
    if wrapper in NEED_WEIGHTS and not holds_weights:
        with pytest.raises(ValueError, match="own state holds the weights"):
            NEUTRAL[wrapper](tx, k).init(params())
        return
    got, _ = train(NEUTRAL[wrapper](tx, k), method, k)
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BALANCERS)
def test_shared_mode_without_a_network_is_the_method(name, standard):
    """With parameters for a representation, the weighted gradient is the update."""
    method = BALANCERS[name]
    k = method.few
    tx, (grads, _) = method.make(k), batch(k, 0)

    def losses_fn(params, z):
        return tuple(sum(jnp.vdot(g[key], z[key]) for key in z) + 10.0 for g in grads)

    state = tx.init(params())
    fn = kdopt.value_and_shared_grad(lambda p: p, losses_fn, tx)
    holds_weights = hasattr(state, "loss_weights") and not hasattr(state, "traces")
    if method.extras(k):
        pytest.skip("needs arguments that the shared call does not pass on")
    if not holds_weights:
        with pytest.raises(ValueError, match="own state holds the weights"):
            fn(params(), state=state)
        return
    values, got, _ = jax.jit(lambda p, s: fn(p, state=s))(params(), state)
    expected, _ = jax.jit(tx.update)(grads, state, params(), values=values)
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-5)
