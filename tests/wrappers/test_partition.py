"""partition and per_layer: a balancer per group."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from kdopt._keys import carry_key
from tests.wrappers._trees import PARAMS, draw


@jax.jit
def least(grads):
    """The combination of least norm."""
    return kdopt.combine(grads, kdopt.min_norm_weights(kdopt.gram(grads)))


def test_partition_is_each_balancer_on_its_group(standard):
    tx = kdopt.partition(
        {"x": kdopt.min_norm(), "y": kdopt.dot(0.5, 0.1)}, {"head": "y", "trunk": "x"}
    )
    state, dot = tx.init(PARAMS), kdopt.dot(0.5, 0.1)
    alone = dot.init(PARAMS["head"])
    step, single = jax.jit(tx.update), jax.jit(dot.update)
    for seed in range(3):
        grads = draw(seed)
        update, state = step(grads, state, PARAMS)
        heads = tuple(g["head"] for g in grads)
        head, alone = single(heads, alone)
        trunks = tuple(g["trunk"] for g in grads)
        np.testing.assert_allclose(update["head"], head, rtol=1e-6)
        np.testing.assert_allclose(update["trunk"], least(trunks), rtol=1e-5)
    with pytest.raises(ValueError, match=r"No balancer for the labels \['z'\]"):
        kdopt.partition({"x": kdopt.min_norm()}, "z").init(PARAMS)


def test_per_layer_groups_by_leaf_or_by_prefix():
    rng = np.random.default_rng(0)
    params = {"a": {"w": jnp.zeros(2), "b": jnp.zeros(1)}, "c": {"w": jnp.zeros(3)}}
    grads = tuple(
        jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape)), params)
        for _ in range(2)
    )
    leaves = kdopt.per_layer(kdopt.min_norm())
    update, state = jax.jit(leaves.update)(grads, leaves.init(params), params)
    assert len(state.inner_states) == 3
    pair = tuple(g["a"]["w"] for g in grads)
    np.testing.assert_allclose(update["a"]["w"], least(pair), rtol=1e-5)
    layers = kdopt.per_layer(kdopt.min_norm(), depth=1)
    update, state = jax.jit(layers.update)(grads, layers.init(params), params)
    assert len(state.inner_states) == 2
    pair = tuple(g["a"] for g in grads)
    np.testing.assert_allclose(update["a"]["b"], least(pair)["b"], rtol=1e-5)


RANDOM = {
    "graddrop": lambda: kdopt.graddrop(num_losses=3, key=jax.random.key(0)),
    "pcgrad": lambda: kdopt.pcgrad(num_losses=3, key=jax.random.key(0)),
    "random_weights": lambda: kdopt.random_weights(num_losses=3, key=jax.random.key(0)),
}


@pytest.mark.parametrize("name", RANDOM)
def test_groups_draw_numbers_of_their_own(name):
    params = {"a": jnp.zeros(4), "b": jnp.zeros(4)}
    state = kdopt.per_layer(RANDOM[name]()).init(params)
    first, second = (jax.tree.leaves(s) for s in state.inner_states.values())
    keys = [(x, y) for x, y in zip(first, second, strict=True) if x.dtype == jnp.uint32]
    assert keys and all(np.any(x != y) for x, y in keys)


@pytest.mark.parametrize(
    "key", [None, 0, "0", jnp.zeros(2), jax.random.split(jax.random.key(0))]
)
def test_what_is_no_key_is_refused(key):
    message = r"pcgrad is random: pass key=jax\.random\.key\(0\), got"
    with pytest.raises(ValueError, match=message):
        carry_key(key, "pcgrad")


def test_raw_keys_are_keys():
    kdopt.pcgrad(num_losses=3, key=jax.random.PRNGKey(0)).init(jnp.zeros(2))
