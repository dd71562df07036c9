"""linearize: slopes are the inner products of the gradients, for one forward pass."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import kdopt

pytestmark = pytest.mark.usefixtures("standard")

PARAMS = {
    "w": jnp.asarray(np.linspace(-1, 1, 6).reshape(3, 2), jnp.float32),
    "b": jnp.array([0.1, -0.2]),
}
X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)


def losses_fn(params, x):
    y = jnp.tanh(x @ params["w"] + params["b"])
    return jnp.mean(y**2), jnp.mean(jnp.abs(y - 1)), jnp.mean(jnp.sin(3 * y))


def direction():
    return jax.tree.map(lambda p: jnp.cos(3 * p), PARAMS)


def test_agrees_with_the_gradients():
    weights = jnp.array([0.3, -1.0, 2.0])

    @jax.jit
    def run(params, x):
        at = kdopt.linearize(losses_fn)(params, x)
        return at.values, at.slopes(direction()), at.gradient(weights), at.aux

    @jax.jit
    def reference(params, x):
        values, grads = kdopt.value_and_grads(losses_fn)(params, x)
        falls = jnp.stack([optax.tree.vdot(g, direction()) for g in grads])
        return values, falls, kdopt.combine(grads, weights)

    *got, aux = run(PARAMS, X)
    values, falls, combined = reference(PARAMS, X)
    np.testing.assert_allclose(got[1], falls, rtol=1e-5)
    np.testing.assert_allclose(got[0], values, rtol=1e-6)
    chex.assert_trees_all_close(got[2], combined, rtol=1e-5)
    assert aux is None


def test_inner_products_in_double_precision(x64):
    """Equal to the inner products of K + 1 gradients to 1e-12."""
    params = jax.tree.map(lambda p: p.astype(jnp.float64), PARAMS)
    x = X.astype(jnp.float64)

    @jax.jit
    def gradients(params):
        _, grads = kdopt.value_and_grads(losses_fn)(params, x)
        reference = jax.grad(lambda p: losses_fn(p, x[:2])[0])(params)
        return reference, kdopt.gram((*grads, reference))[-1, :-1]

    reference, expected = gradients(params)
    slopes = jax.jit(lambda p: kdopt.linearize(losses_fn)(p, x).slopes(reference))(
        params
    )
    np.testing.assert_allclose(slopes, expected, rtol=1e-12, atol=1e-15)


def test_slopes_along_the_gradient_are_the_falls():
    weights = jnp.array([0.3, 1.0, 2.0])

    @jax.jit
    def both(params, x):
        at = kdopt.linearize(losses_fn)(params, x)
        _, grads = kdopt.value_and_grads(losses_fn)(params, x)
        return at.slopes(at.gradient(weights)), kdopt.gram(grads) @ weights

    np.testing.assert_allclose(*both(PARAMS, X), rtol=1e-5)


def test_auxiliary_data_several_arguments_and_forward_passes():
    calls = []

    def fn(w, x, b):
        calls.append(1)
        y = jnp.tanh(x @ w + b)
        return (jnp.mean(y), jnp.mean(y**2)), {"y": y}

    at = kdopt.linearize(fn, argnums=(0, 2), has_aux=True)(PARAMS["w"], X, PARAMS["b"])
    tangent = jnp.ones((3, 2)), jnp.zeros(2)
    slopes, (of_w, of_b) = at.slopes(tangent), at.gradient(jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(slopes[0], jnp.sum(of_w), rtol=1e-5)
    assert at.aux["y"].shape == (8, 2) and of_b.shape == (2,)
    assert len(calls) == 1


def test_absent_losses_have_no_slope():

    @jax.jit
    def run(params, x):
        at = kdopt.linearize(losses_fn)(params, x, present=[True, False, True])
        return at.values, at.slopes(direction())

    values, slopes = run(PARAMS, X)
    assert values[1] == 0 and slopes[1] == 0 and slopes[0] != 0


def test_wrong_number_of_weights():
    with pytest.raises(ValueError, match="Expected 3 weights"):
        kdopt.linearize(losses_fn)(PARAMS, X).gradient(jnp.ones(2))


@pytest.mark.parametrize("check_vma", [True, False])
def test_means_over_replicas(check_vma):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def run(params, x, axis_name=None):
        at = kdopt.linearize(losses_fn, axis_name=axis_name)(params, x)
        return at.values, at.slopes(direction()), at.gradient(jnp.ones(3))

    mapped = jax.shard_map(
        lambda p, x: run(p, x, "data"),
        mesh=mesh,
        in_specs=(P(), P("data")),
        out_specs=P(),
        check_vma=check_vma,
    )
    got, expected = jax.jit(mapped)(PARAMS, X), jax.jit(run)(PARAMS, X)
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-6)
