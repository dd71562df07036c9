"""What the gradient calls reject before they differentiate, and their messages."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt

pytestmark = pytest.mark.usefixtures("standard")


def losses_fn(p):
    return jnp.sum(p["w"] ** 2), jnp.sum((p["w"] - 1) ** 2)


def heads(p, z):
    return jnp.sum(z**2), jnp.sum((z - 1) ** 2)


def shared_call(p):
    balancer = kdopt.min_norm()
    fn = kdopt.value_and_shared_grad(lambda p: p["w"], heads, balancer)
    return fn(p, state=balancer.init(jnp.ones(3)))


CALLS = {
    "grads": kdopt.value_and_grads(losses_fn),
    "weighted": lambda p: kdopt.value_and_weighted_grad(losses_fn)(
        p, weights=jnp.ones(2)
    ),
    "shared": shared_call,
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_call
@pytest.mark.parametrize(
    ("leaf", "dtype"),
    [
        (jnp.array(3), "int32"),
        (jnp.array([True]), "bool"),
        (np.arange(2), "int"),
        (3, "int"),
        (jax.random.key(0), r"key<fry>"),
        (jax.random.PRNGKey(0), "uint32"),
        ("name", "str"),
        (jnp.tanh, ""),
    ],
    ids=["int32", "bool", "numpy", "python", "key", "raw key", "str", "function"],
)
def test_leaves_without_a_gradient_are_named(call, leaf, dtype):
    params = {"w": jnp.ones(3), "extra": {"count": leaf}}
    message = rf"\['extra'\]\['count'\].* of dtype {dtype}.*nnx\.split.*eqx\.partition"
    with pytest.raises(TypeError, match=message):
        call(params)


@every_call
def test_numbers_and_arrays_of_numpy_are_differentiated(call):
    call({"w": np.ones(3), "scale": 2.0, "none": None, "half": jnp.ones(1, "bfloat16")})


def test_equinox_models_are_split_by_the_recipe():
    model = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))

    def losses(params, static):
        y = eqx.combine(params, static)(jnp.ones(3))
        return jnp.sum(y**2), jnp.sum((y - 1) ** 2)

    params, static = eqx.partition(model, eqx.is_inexact_array)

    @jax.jit
    def both(params):
        _, grads = kdopt.value_and_grads(losses)(params, static)
        return grads, jax.grad(lambda p: losses(p, static)[1])(params)

    grads, expected = both(params)
    np.testing.assert_allclose(
        grads[1].layers[0].weight, expected.layers[0].weight, rtol=1e-6
    )
    with pytest.raises(TypeError, match=r"\.activation.*eqx\.partition"):
        kdopt.value_and_grads(lambda m: losses(m, m))(model)


@pytest.mark.parametrize("zero", [0, 0.0, False, np.float32(0), jnp.array(0)], ids=repr)
def test_a_loss_that_is_a_number(zero):
    values, grads = kdopt.value_and_grads(lambda p: (jnp.sum(p**2), zero))(jnp.ones(2))
    np.testing.assert_array_equal(values, [2.0, 0.0])
    np.testing.assert_array_equal(grads[1], [0.0, 0.0])
    assert values.dtype == jnp.float32


def test_losses_that_are_all_whole_numbers():
    values, _ = kdopt.value_and_grads(lambda p: (0, 1))(jnp.ones(2))
    assert values.dtype == jnp.float32


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (lambda x: (x.sum(), x.sum(), {"x": x}), r"a pair \(result, aux\).*dict"),
        (lambda x: (x.sum(), x.sum()), "losses are a tuple of their own"),
        (lambda x: x, r"a pair \(result, aux\)"),
        (lambda x: x.sum(), r"a pair \(result, aux\)"),
    ],
    ids=["flat", "no aux", "array", "scalar"],
)
def test_aux_that_is_not_there(out, message):
    with pytest.raises(ValueError, match=message):
        kdopt.value_and_grads(out, has_aux=True)(jnp.ones(3))


def test_shared_call_says_which_function_returned_no_pair():
    balancer = kdopt.min_norm()
    fn = kdopt.value_and_shared_grad(lambda p: p, heads, balancer, has_aux=True)
    with pytest.raises(ValueError, match="encode_fn must return a pair"):
        fn(jnp.ones(3), state=balancer.init(jnp.ones(3)))


def test_complex_losses_are_refused():
    with pytest.raises(ValueError, match="real losses, got one of dtype complex64"):
        kdopt.value_and_grads(lambda p: (p.sum() * 1j, p.sum()))(jnp.ones(2))
