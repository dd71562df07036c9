"""Reachability of parameters by losses, through every kind of sub-program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt

PARAMS = {"a": jnp.ones(3), "b": jnp.full(3, 2.0), "c": jnp.full(3, 3.0)}


@jax.custom_jvp
def _cube(x):
    return x**3


@_cube.defjvp
def _cube_jvp(primals, tangents):
    return _cube(primals[0]), 3 * primals[0] ** 2 * tangents[0]


@jax.custom_vjp
def _first_only(x, y):
    return jnp.sum(x * y)


_first_only.defvjp(
    lambda x, y: (jnp.sum(x * y), y), lambda y, ct: (ct * y, jnp.zeros_like(y))
)


def _plain(p):
    return jnp.sum(p["a"] * p["b"]), jnp.sum(p["b"] * p["c"])


def _stopped(p):
    b = jax.lax.stop_gradient(p["b"])
    return jnp.sum(p["a"] * b), jnp.sum(jax.lax.stop_gradient(p["a"]) + p["b"] * p["c"])


def _nested_jit(p):
    f = jax.jit(lambda x, y, z: (jnp.sum(x * y), jnp.sum(y * z)))
    return f(p["a"], p["b"], p["c"])


def _scan(p):
    """Two carries that never meet: only the fixed point tells them apart."""

    def body(carry, _):
        x, y = carry
        return (x * p["a"] + p["b"], jnp.sin(y * p["c"]) + p["b"]), None

    (x, y), _ = jax.lax.scan(body, (jnp.ones(3), jnp.ones(3)), length=3)
    return jnp.sum(x), jnp.sum(y)


def _crossing_scan(p):
    """The second carry depends on `a` only from the second iteration on."""

    def body(carry, _):
        x, y = carry
        return (x * p["a"], y * p["b"] + x), None

    (x, y), _ = jax.lax.scan(body, (jnp.ones(3), jnp.ones(3)), length=3)
    return jnp.sum(x), jnp.sum(y)


def _cond(p):
    def branch(scale):
        return lambda x, y, z: (scale * jnp.sum(x * y), jnp.sum(jnp.sin(y * z)))

    return jax.lax.cond(
        jnp.sum(p["a"]) > 0, branch(1.0), branch(2.0), p["a"], p["b"], p["c"]
    )


def _custom_rules(p):
    task = jnp.sum(_cube(p["a"])) + _first_only(p["b"], p["c"])
    return task, jnp.sum(jax.checkpoint(jnp.sin)(p["b"]) * _cube(p["c"]))


def _integers(p):
    return jnp.sum(p["a"][jnp.argsort(p["b"])]), jnp.sum(p["b"]) * jnp.max(p["c"])


def _constant(p):
    return jnp.sum(p["a"]), jnp.zeros(())


CASES = {
    _plain: ("ab", "bc"),
    _stopped: ("a", "bc"),
    _nested_jit: ("ab", "bc"),
    _scan: ("ab", "bc"),
    _crossing_scan: ("a", "ab"),
    _cond: ("ab", "bc"),
    _custom_rules: ("ab", "bc"),
    _integers: ("a", "bc"),
    _constant: ("a", ""),
}


@pytest.mark.parametrize("losses_fn", CASES, ids=lambda f: f.__name__[1:])
def test_reach_and_that_the_rest_has_no_gradient(losses_fn):
    reach = kdopt.reachable(losses_fn)(PARAMS)
    _, grads = jax.jit(kdopt.value_and_grads(losses_fn))(PARAMS)
    for mask, names, grad in zip(reach, CASES[losses_fn], grads, strict=True):
        assert mask == {name: name in names for name in PARAMS}
        for name, reached in mask.items():
            assert reached == bool(np.any(grad[name] != 0))


def test_aux_other_arguments_and_shapes_instead_of_arrays():
    def losses_fn(p, batch, *, scale):
        return (jnp.sum(p["a"] * batch), scale * jnp.sum(p["b"])), {"seen": batch}

    shapes = jax.eval_shape(lambda: PARAMS)
    reach = kdopt.reachable(losses_fn, has_aux=True)(shapes, jnp.ones(3), scale=2.0)
    only = {"a": True, "b": False, "c": False}, {"a": False, "b": True, "c": False}
    assert reach == only


def test_an_array_of_losses_says_what_to_return():
    with pytest.raises(ValueError, match=r"return \(task, distill\), not an array"):
        kdopt.reachable(lambda p: jnp.stack(_plain(p)))(PARAMS)


def test_dot_takes_it_inside_jit():
    """Found while the step is traced; what one loss reaches moves with plain mu."""
    tx = kdopt.dot(0.9, 0.05, reach=kdopt.reachable(_plain))

    @jax.jit
    def two_steps(params):
        _, grads = kdopt.value_and_grads(_plain)(params)
        _, state = tx.update(grads, tx.init(params), params)
        return grads, tx.update(grads, state, params)[1].traces

    grads, traces = two_steps(PARAMS)
    for loss, name, momentum in [(0, "a", 0.9), (0, "b", 0.85), (1, "b", 0.95)]:
        expected = (1 + momentum) * grads[loss][name]
        np.testing.assert_allclose(traces[loss][name], expected, rtol=1e-6)
    np.testing.assert_allclose(traces[1]["c"], 1.9 * grads[1]["c"], rtol=1e-6)
