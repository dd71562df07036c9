"""A state owns its buffers: a step may donate it, twice, and other seeds may follow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests._methods import METHOD, METHODS, transform
from tests._turns import in_turn

pytestmark = pytest.mark.usefixtures("standard")


def pointers(tree):
    """Returns the addresses of the arrays of a tree; empty arrays have none."""
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(tree)]
    return [x.unsafe_buffer_pointer() for x in leaves if x.size]


def assert_apart(*trees):
    found = [pointer for tree in trees for pointer in pointers(tree)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("name", in_turn([m.name for m in METHODS], 2))
def test_no_two_arrays_share_a_buffer(name):
    method, k = METHOD[name], METHOD[name].few
    tx, params = transform(name, k), {"w": jnp.ones((4, 3))}
    state, second = tx.init(params), tx.init(params)
    assert_apart(params, state, second)
    grads = tuple({"w": jnp.sin(i + params["w"])} for i in range(k))
    values = jnp.arange(1.0, k + 1)
    _, state = tx.update(
        method.feed(grads), state, params, values=values, **method.extras(k)
    )
    assert_apart(params, state, second, grads, values)


BOUNDS, SHARES = np.array([0.1, 0.2]), np.array([0.4, 0.6])

WITH_ARRAYS = {
    **{
        f"{name}({argument})": (name, argument, array)
        for name, argument, array in (
            ("famo", "min_losses", BOUNDS),
            ("dto_kd_amortized", "min_losses", BOUNDS),
            ("geometric_mean", "min_losses", BOUNDS),
            ("stch", "min_losses", BOUNDS),
            ("pbi", "min_losses", BOUNDS),
            ("stch", "preferences", SHARES),
            ("pbi", "preferences", SHARES),
            ("cosmos", "preferences", SHARES),
            ("uncertainty", "initial", BOUNDS),
            ("imtl_l", "initial", BOUNDS),
            ("linear", "weights", SHARES),
            ("dto_kd", "min_losses", BOUNDS),
        )
    },
    "stch(mu)": ("stch", "mu", np.array(0.5)),
    "famo(eps)": ("famo", "eps", np.array(1e-6)),
}
OPTIONS = {"famo": {"signal": "next"}}


@pytest.mark.parametrize("case", WITH_ARRAYS)
def test_arrays_of_the_user_live_on(case):
    name, argument, array = WITH_ARRAYS[case]
    given = jnp.asarray(array, jnp.float32)
    factory = getattr(kdopt, name)
    tx = factory(**{argument: given}, **OPTIONS.get(name, {}))
    scalarizer = hasattr(kdopt.scalarizers, f"{name}_weights")
    params = jnp.ones(3)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, batch):
        grads = params if scalarizer else (params, 2 * params)
        values = jnp.mean(batch) + jnp.array([1.0, 2.0])
        return tx.update(grads, state, params, values=values)[1]

    for _ in range(2):  # two seeds
        state = tx.init(params)
        state = tx.update(
            params if scalarizer else (params, params), state, params, values=SHARES
        )[1]
        for size in (8, 8, 5):  # the last batch is smaller: the step is traced again
            state = step(state, jnp.ones(size))
    np.testing.assert_allclose(given, array, rtol=1e-6)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))


KEYED = {
    "random_weights": {},
    "graddrop": {},
    "pcgrad": {"num_losses": 3},
    "gradvac": {"num_losses": 3},
}


@pytest.mark.parametrize("name", KEYED)
def test_keys_of_the_user_live_on(name):
    key = jax.random.key(0)
    tx = getattr(kdopt, name)(key=key, **KEYED[name])
    grads = (jnp.ones(3),) * KEYED[name].get("num_losses", 2)
    step = jax.jit(lambda s: tx.update(grads, s)[1], donate_argnums=0)
    for _ in range(2):
        state = tx.init(grads[0])
        for _ in range(2):
            state = step(state)
    assert jax.random.key_data(key).shape == (2,)


def test_initial_states_of_the_user_live_on():
    given = {"a": jnp.array([0.1, 0.2]), "b": 1.0}
    tx = kdopt.from_weights(lambda g, s: (s["a"], s), initial_state=given)
    grads = (jnp.ones(3),) * 2
    step = jax.jit(lambda s: tx.update(grads, s)[1], donate_argnums=0)
    for _ in range(2):
        state = step(step(tx.init(grads[0])))
    np.testing.assert_allclose(given["a"], state.inner["a"])
