"""One scalar with the gradient of value_and_shared_grad, whoever differentiates it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import kdopt
from kdopt import losses

BALANCERS = {
    "dto_kd": kdopt.dto_kd(),
    "min_norm": kdopt.min_norm(),
    "pcgrad": kdopt.pcgrad(),
    "nash_mtl": kdopt.nash_mtl(),
    "linear": kdopt.linear((0.3, 0.7)),
    "modo": kdopt.modo(),
    "gradnorm": kdopt.gradnorm(),
}


def params_and_batch():
    rng = np.random.default_rng(0)
    shapes = {"first": (5, 8), "second": (8, 8), "head": (8, 4)}
    params = {
        name: np.float32(rng.normal(size=shape)) for name, shape in shapes.items()
    }
    x, teacher = (np.float32(rng.normal(size=shape)) for shape in ((6, 5), (6, 4)))
    return params, (x, teacher, np.arange(6, dtype=np.int32) % 4)


def encode(params, batch):
    return jnp.tanh(jnp.tanh(batch[0] @ params["first"]) @ params["second"])


encoded = jax.jit(encode)


def heads(params, z, batch):
    logits = z @ params["head"]
    return losses.cross_entropy(logits, batch[2]), losses.kd(logits, batch[1])


def scalar(params, batch, balancer, **options):
    losses_fn = functools.partial(heads, params, batch=batch)
    return kdopt.balanced_loss(losses_fn, encode(params, batch), balancer, **options)


def assert_close(got, expected, rtol=1e-6):
    for ours, theirs in zip(
        jax.tree.leaves(got), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-7)


@pytest.mark.parametrize("name", BALANCERS)
def test_gradient_and_state_are_those_of_the_shared_call(name):
    """The head's gradient too, and over several steps for balancers with a state."""
    balancer, (params, batch) = BALANCERS[name], params_and_batch()
    ours = theirs = balancer.init(encoded(params, batch))
    shared = jax.jit(kdopt.value_and_shared_grad(encode, heads, balancer))
    fn = functools.partial(scalar, balancer=balancer)
    grad_fn = jax.jit(jax.value_and_grad(fn, has_aux=True))
    for _ in range(3):
        values, expected, theirs = shared(params, batch, state=theirs)
        (loss, aux), grads = grad_fn(params, batch, state=ours)
        ours = aux.state
        assert_close((grads, ours, aux.values), (expected, theirs, values))
        np.testing.assert_allclose(loss, aux.weights @ values, rtol=1e-6)
        np.testing.assert_allclose(aux.weights, theirs.loss_weights, rtol=1e-6)
        params = jax.tree.map(lambda p, g: p - 0.1 * np.asarray(g), params, grads)


def test_bits_in_double_precision(x64):
    params, batch = jax.tree.map(
        lambda x: np.float64(x) if x.dtype == np.float32 else x, params_and_batch()
    )
    balancer = kdopt.dto_kd()
    state = balancer.init(encoded(params, batch))
    shared = jax.jit(kdopt.value_and_shared_grad(encode, heads, balancer))
    _, expected, _ = shared(params, batch, state=state)
    fn = functools.partial(scalar, balancer=balancer)
    grads, _ = jax.jit(jax.grad(fn, has_aux=True))(params, batch)
    assert_close(grads, expected, rtol=1e-14)


def test_cosines_and_conflicts():
    params, batch = params_and_batch()

    @jax.jit
    def both(params, batch):
        _, aux = scalar(params, batch, kdopt.min_norm())
        _, pair = kdopt.value_and_grads(lambda z: heads(params, z, batch))(
            encode(params, batch)
        )
        matrix = kdopt.gram(pair)
        return aux, matrix, kdopt.diagnostics.cosines(matrix)

    aux, matrix, cosines = both(params, batch)
    np.testing.assert_allclose(aux.gram, matrix, rtol=1e-5)
    np.testing.assert_allclose(aux.cosines, cosines, rtol=1e-5)
    np.testing.assert_array_equal(aux.conflicts, np.asarray(matrix) < 0)


def test_a_memory_must_be_passed_on():
    params, batch = params_and_batch()
    for name in ("modo", "gradnorm"):
        fn = functools.partial(scalar, balancer=BALANCERS[name])
        with pytest.raises(ValueError, match="from then on"):
            jax.eval_shape(fn, params, batch)
    fn = functools.partial(scalar, balancer=kdopt.dot())
    with pytest.raises(ValueError, match="holds the weights"):
        jax.eval_shape(fn, params, batch, state=kdopt.dot().init(params))


def test_absent_losses():
    params, batch = params_and_batch()
    balancer = kdopt.dto_kd()
    state = balancer.init(encoded(params, batch))
    shared = kdopt.value_and_shared_grad(encode, heads, balancer)
    grad_fn = jax.grad(scalar, has_aux=True)
    for present in ([True, False], [False, True]):
        here = functools.partial(shared, state=state, present=present)
        _, expected, _ = jax.jit(here)(params, batch)
        here = functools.partial(grad_fn, balancer=balancer, present=present)
        grads, aux = jax.jit(here)(params, batch)
        assert_close(grads, expected)
        assert (np.asarray(aux.weights) > 0).tolist() == present


def test_under_scan_and_checkpoint():
    params, batch = params_and_batch()
    fn = jax.checkpoint(lambda p, b: scalar(p, b, kdopt.dto_kd()))
    expected, _ = jax.jit(jax.grad(fn, has_aux=True))(params, batch)

    @jax.jit
    def scanned(params):
        stacked = jax.tree.map(lambda x: jnp.stack([x, x]), batch)

        def step(total, part):
            grads, aux = jax.grad(fn, has_aux=True)(params, part)
            return jax.tree.map(jnp.add, total, grads), aux.weights

        return jax.lax.scan(step, jax.tree.map(jnp.zeros_like, params), stacked)

    total, weights = scanned(params)
    assert_close(total, jax.tree.map(lambda x: 2 * x, expected), rtol=1e-5)
    assert weights.shape == (2, 2)


def test_over_replicas():
    """Each holds a part of the batch, and the trainer averages gradients."""
    params, batch = params_and_batch()
    balancer = kdopt.dto_kd(axis_name="data")
    fn = functools.partial(scalar, balancer=kdopt.dto_kd())
    expected, aux = jax.jit(jax.grad(fn, has_aux=True))(params, batch)

    def of_replica(params, batch):
        params = jax.lax.pcast(params, "data", to="varying")
        grads, aux = jax.grad(scalar, has_aux=True)(
            params, batch, balancer, axis_name="data"
        )
        return jax.lax.pmean((grads, aux.weights), "data")

    mesh = jax.sharding.Mesh(jax.devices()[:3], ("data",))
    mapped = jax.shard_map(
        of_replica, mesh=mesh, in_specs=(P(), P("data")), out_specs=P()
    )
    grads, weights = jax.jit(mapped)(params, batch)
    assert_close((grads, weights), (expected, aux.weights), rtol=1e-4)


def test_losses_that_are_no_scalars():
    with pytest.raises(ValueError, match="K scalar losses"):
        kdopt.balanced_loss(lambda z: (z, z), jnp.ones(2), kdopt.min_norm())
