"""Losses that are absent from a batch, in the three gradient calls."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import kdopt

pytestmark = pytest.mark.usefixtures("standard")

PARAMS = {"w": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array(0.3)}
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)


def encode(p, x, *_):
    return jnp.tanh(x * p["w"])


def heads(p, z, x, here):
    """The second loss is 0/0 = NaN, with a gradient of NaN, in a batch without it."""
    y = jnp.sum(z, axis=1) + p["b"]
    absent = jnp.sum(jnp.where(here, (y - 1) ** 2, 0)) / jnp.sum(here)
    return jnp.mean(y**2), absent, jnp.mean(jnp.abs(y - 2))


def losses_fn(p, x, here):
    return heads(p, encode(p, x), x, here)


def two_losses_fn(p, x, here):
    first, _, last = losses_fn(p, x, here)
    return first, last


NOBODY, FIRST_TWO = jnp.zeros(6), jnp.array([1.0, 1, 0, 0, 0, 0])
PRESENT = {
    "array": jnp.array([True, False, True]),
    "bools": (True, False, True),
    "counts": jnp.array([6.0, 0.0, 6.0]),
    "numpy": np.array([1, 0, 1]),
    "scalars": [jnp.array(True), jnp.array(0), 1.0],
}


two_grads = jax.jit(kdopt.value_and_grads(two_losses_fn))


@pytest.mark.parametrize("present", PRESENT.values(), ids=PRESENT)
def test_an_absent_loss_has_no_gradient(present):
    fn = jax.jit(kdopt.value_and_grads(losses_fn))
    values, grads = fn(PARAMS, X, NOBODY, present=present)
    expected_values, expected = two_grads(PARAMS, X, NOBODY)
    chex.assert_trees_all_close((grads[0], grads[2]), expected, rtol=1e-5)
    np.testing.assert_allclose(values[::2], expected_values, rtol=1e-6)
    assert values[1] == 0 and not any(map(np.any, jax.tree.leaves(grads[1])))


@pytest.mark.parametrize("present", [None, [1, 1, 1]], ids=["none", "all"])
def test_present_losses_are_as_they_were(present):
    fn = jax.jit(kdopt.value_and_grads(losses_fn))
    values, grads = fn(PARAMS, X, FIRST_TWO, present=present)

    @jax.jit
    def stacked(p):
        return jnp.stack(losses_fn(p, X, FIRST_TWO))

    expected = jax.jit(jax.jacrev(stacked))(PARAMS)
    for i in range(3):
        row = jax.tree.map(lambda j, i=i: np.asarray(j)[i], expected)
        chex.assert_trees_all_close(grads[i], row, rtol=1e-5)
    np.testing.assert_allclose(values, stacked(PARAMS), rtol=1e-6)


def safe(fn):
    """The same, with a denominator of at least one, as one backward pass requires."""
    return lambda *args: fn(
        *args[:-1], jnp.where(jnp.sum(args[-1]) > 0, args[-1], 1e-9)
    )


def test_weighted_grad_leaves_an_absent_loss_out():
    fn = jax.jit(kdopt.value_and_weighted_grad(safe(losses_fn)))
    two = jax.jit(kdopt.value_and_weighted_grad(two_losses_fn))
    weights, mask = np.float32([0.2, 5, 0.7]), PRESENT["array"]
    values, got = fn(PARAMS, X, NOBODY, weights=weights, present=mask)
    _, expected = two(PARAMS, X, NOBODY, weights=weights[::2])
    chex.assert_trees_all_close(got, expected, rtol=1e-5)
    assert values[1] == 0


def test_shared_grad_leaves_an_absent_loss_out():
    balancer, two = kdopt.dto_kd(num_losses=3), kdopt.dto_kd()

    def two_heads(*args):
        first, _, last = heads(*args)
        return first, last

    fn = jax.jit(kdopt.value_and_shared_grad(encode, safe(heads), balancer))
    state = balancer.init(PARAMS)
    _, got, state = fn(PARAMS, X, NOBODY, state=state, present=PRESENT["array"])
    of_two = jax.jit(kdopt.value_and_shared_grad(encode, two_heads, two))
    _, expected, other = of_two(PARAMS, X, NOBODY, state=two.init(PARAMS))
    chex.assert_trees_all_close(got, expected, rtol=1e-5)
    first, last = other.loss_weights
    np.testing.assert_allclose(state.loss_weights, [first, 0, last], rtol=1e-5)


def replicas():
    return jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


@pytest.mark.parametrize("check_vma", [True, False])
def test_mean_over_the_replicas_that_have_the_loss(check_vma):
    """The first replica has examples of the second loss, the other has none."""

    def local(p, x, here):
        present = jnp.stack([jnp.array(True), jnp.any(here > 0), jnp.array(True)])
        fn = kdopt.value_and_grads(losses_fn, axis_name="data")
        return fn(p, x, here, present=present)

    mapped = jax.shard_map(
        local,
        mesh=replicas(),
        in_specs=(P(), P("data"), P("data")),
        out_specs=P(),
        check_vma=check_vma,
    )
    got_values, got = jax.jit(mapped)(PARAMS, X, FIRST_TWO)
    values, grads = jax.jit(kdopt.value_and_grads(losses_fn))(PARAMS, X, FIRST_TWO)
    chex.assert_trees_all_close(got[1], grads[1], rtol=1e-5)
    np.testing.assert_allclose(got_values, values, rtol=1e-5)


@pytest.mark.parametrize("present", [[True], jnp.ones((3, 1)), jnp.array(True)])
def test_wrong_masks(present):
    with pytest.raises(ValueError, match="present must hold one bool per loss, 3"):
        kdopt.value_and_grads(losses_fn)(PARAMS, X, NOBODY, present=present)
