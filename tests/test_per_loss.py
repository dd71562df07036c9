"""Three ways to get gradients: equal to jax.grad, and with one forward pass."""

import functools
from collections import namedtuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import kdopt
from tests import _samplers

pytestmark = pytest.mark.usefixtures("standard")

Point = namedtuple("Point", "x y")


def losses_fn(p, scale=1.0):
    return (
        jnp.sum(p["a"] ** 2) * scale,
        jnp.sum(jnp.sin(p["a"])) + p["b"].x,
        p["b"].x * p["b"].y,
    )


PARAMS = {
    "a": jnp.array([1.0, -2.0]),
    "b": Point(jnp.array(3.0), jnp.array(0.5)),
    "none": None,
}


def one_by_one(fn, *args, argnums=0, **kwargs):
    """The gradient of every loss, by ``jax.grad``."""
    k = len(fn(*args, **kwargs))
    return tuple(
        jax.grad(lambda *a, i=i: fn(*a, **kwargs)[i], argnums)(*args) for i in range(k)
    )


@pytest.mark.parametrize("as_array", [False, True])
def test_grads_equal_jax_grad(as_array):
    fn = (lambda *a: jnp.stack(losses_fn(*a))) if as_array else losses_fn
    values, grads = jax.jit(kdopt.value_and_grads(fn))(PARAMS)
    np.testing.assert_allclose(values, jax.jit(losses_fn)(PARAMS), rtol=1e-6)
    expected = jax.jit(lambda p: one_by_one(losses_fn, p))(PARAMS)
    chex.assert_trees_all_close(grads, expected, rtol=1e-6)
    assert isinstance(grads, tuple)


def two_arguments(x, y, *, factor=1.0):
    return factor * jnp.sum(x * y), jnp.sum(x**2 + y**3)


@pytest.mark.parametrize("argnums", [0, 1, -1, (0, 1), (1,), [1, 0]], ids=str)
def test_argnums_and_keywords(argnums):
    x, y = jnp.array([1.0, 2.0]), jnp.array([3.0, -1.0])
    fn = kdopt.value_and_grads(two_arguments, argnums=argnums)
    values, grads = fn(x, y, factor=2.0)
    numbers = tuple(argnums) if isinstance(argnums, list) else argnums
    expected = one_by_one(two_arguments, x, y, argnums=numbers, factor=2.0)
    chex.assert_trees_all_close(grads, expected)
    weights = jnp.array([0.3, 0.7])
    fn = kdopt.value_and_weighted_grad(two_arguments, argnums=argnums)
    again, grad = fn(x, y, weights=weights, factor=2.0)
    combined = jax.tree.map(lambda *g: 0.3 * g[0] + 0.7 * g[1], *expected)
    chex.assert_trees_all_close(grad, combined, rtol=1e-6)
    chex.assert_trees_all_equal(again, values)


@pytest.mark.parametrize("argnums", [2, -3, (0, 5)])
def test_argnums_out_of_range(argnums):
    fn = kdopt.value_and_grads(two_arguments, argnums=argnums)
    with pytest.raises(ValueError, match="is out of range"):
        fn(jnp.ones(1), jnp.ones(1))


def test_aux_is_passed_on():
    def with_aux(p):
        return losses_fn(p), {"seen": p["a"]}

    (values, aux), grads = kdopt.value_and_grads(with_aux, has_aux=True)(PARAMS)
    chex.assert_trees_all_equal(aux, {"seen": PARAMS["a"]})
    plain = kdopt.value_and_grads(losses_fn)(PARAMS)
    chex.assert_trees_all_close((values, grads), plain)
    fn = kdopt.value_and_weighted_grad(with_aux, has_aux=True)
    (_, aux), _ = fn(PARAMS, weights=jnp.ones(3))
    chex.assert_trees_all_equal(aux, {"seen": PARAMS["a"]})


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: (x, x), r"K scalar losses, got shapes \[\(2,\), \(2,\)\]"),
        (lambda x: (), r"K scalar losses, got shapes \[\]"),
        (lambda x: jnp.sum(x), r"tuple of K scalars or an array of shape \(k,\)"),
        (lambda x: {"task": jnp.sum(x)}, "got dict of shape None"),
        (lambda x: jnp.ones((2, 2)) * x[None, :], r"an array of shape \(k,\)"),
        (lambda x: ((jnp.sum(x), jnp.sum(x)), {"a": x}), "only with has_aux=True"),
    ],
)
def test_losses_that_are_not_scalars(fn, message):
    with pytest.raises(ValueError, match=message):
        kdopt.value_and_grads(fn)(jnp.ones(2))


@pytest.mark.parametrize("weights", [jnp.ones(2), jnp.ones(()), jnp.ones((3, 1))])
def test_wrong_weights(weights):
    with pytest.raises(ValueError, match="Expected 3 weights, one per loss"):
        kdopt.value_and_weighted_grad(losses_fn)(PARAMS, weights=lambda _: weights)


def test_weights_are_constants():
    """A function of the values is not differentiated through."""
    fn = kdopt.value_and_weighted_grad(losses_fn)
    values, got = fn(PARAMS, weights=lambda values: values**2)
    _, expected = fn(PARAMS, weights=values**2)
    chex.assert_trees_all_equal(got, expected)


def count_forwards(call):
    """Counts the forward passes in the compiled step: they hold the only ``erf``."""

    def model(x):
        return jax.lax.erf(x)

    text = str(jax.make_jaxpr(lambda x: call(model, x))(jnp.ones(3)))
    return text.count(" erf ")


CALLS = {
    "grads": lambda model, x: kdopt.value_and_grads(lambda x: (jnp.sum(model(x)),) * 3)(
        x
    ),
    "weighted": lambda model, x: kdopt.value_and_weighted_grad(
        lambda x: (jnp.sum(model(x)),) * 3
    )(x, weights=jnp.ones(3)),
    "shared": lambda model, x: kdopt.value_and_shared_grad(
        model,
        lambda x, z: (jnp.sum(z), jnp.sum(z**2)),
        kdopt.min_norm(),
    )(x, state=kdopt.min_norm().init(x)),
}


@pytest.mark.parametrize("call", CALLS)
def test_one_forward_pass(call):
    traces = []

    def run(model, x):
        def counted(x):
            traces.append(call)
            return model(x)

        return CALLS[call](counted, x)

    assert count_forwards(run) == 1
    assert len(traces) == 1


# Flax


class Net(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.last = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(self.norm(self.first(x)))


X = jnp.asarray(_samplers.generic(0, 5)[:, :3], jnp.float32)


def logit_losses(z):
    return jnp.mean(z**2), jnp.mean(jnp.abs(z - 1))


def test_nnx_by_split_and_merge():
    model = Net(nnx.Rngs(0))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def losses_fn(params, rest, x):
        net = nnx.merge(graphdef, params, rest, copy=True)
        return logit_losses(net(x)), nnx.split(net, nnx.Param, ...)[2]

    fn = jax.jit(kdopt.value_and_grads(losses_fn, has_aux=True))
    (values, moved), grads = fn(params, rest, X)
    expected = jax.jit(lambda *args: one_by_one(lambda *a: losses_fn(*a)[0], *args))(
        params, rest, X
    )
    for got, want in zip(grads, expected, strict=True):
        chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)
    # the running mean has moved once: by a tenth of the batch mean
    mean = np.mean(model.first(X), axis=0)
    np.testing.assert_allclose(moved["norm"]["mean"][...], 0.1 * mean, rtol=1e-5)
    tx = optax.chain(kdopt.dto_kd(), optax.sgd(0.1))
    update, _ = jax.eval_shape(tx.update, grads, tx.init(params), params, values=values)
    chex.assert_trees_all_equal_shapes(update, params)


def test_linen_train_state():
    net = nn.Dense(2)
    tx = optax.chain(kdopt.dto_kd(rescale="convex"), optax.adam(0.1))
    params = jax.jit(net.init)(jax.random.key(0), X)
    train = TrainState.create(apply_fn=net.apply, params=params, tx=tx)
    pure, opt_state = params, tx.init(params)
    fn = jax.jit(kdopt.value_and_grads(lambda p: logit_losses(net.apply(p, X))))
    for _ in range(2):
        values, grads = fn(train.params)
        # TrainState.apply_gradients passes no extra arguments to the transform
        updates, state = jax.jit(train.tx.update)(
            grads, train.opt_state, train.params, values=values
        )
        train = train.replace(
            params=optax.apply_updates(train.params, updates), opt_state=state
        )
        values, grads = fn(pure)
        updates, opt_state = jax.jit(tx.update)(grads, opt_state, pure, values=values)
        pure = optax.apply_updates(pure, updates)
    chex.assert_trees_all_equal(train.params, pure)


def test_linen_train_state_without_values():
    net = nn.Dense(2)
    params = jax.jit(net.init)(jax.random.key(0), X)
    tx = optax.chain(kdopt.dot(), optax.scale_by_learning_rate(0.1))
    train = TrainState.create(apply_fn=net.apply, params=params, tx=tx)
    fn = jax.jit(kdopt.value_and_grads(lambda p: logit_losses(net.apply(p, X))))
    _, grads = fn(params)
    got = train.apply_gradients(grads=grads)
    expected = jax.tree.map(lambda p, t, d: p - 0.1 * (t + d), params, *grads)
    chex.assert_trees_all_close(got.params, expected, rtol=1e-6)


@pytest.mark.parametrize("method", [kdopt.dot, kdopt.dto_kd])
def test_nnx_optimizer_equals_pure_optax(method):
    """A tuple of gradients arrives at the balancer as a mapping."""
    tx = optax.chain(method(), optax.scale_by_learning_rate(0.1))
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    params = jax.tree.map(jnp.copy, params)  # update writes into the model's own
    state = tx.init(params)

    def losses_fn(params):
        return logit_losses(nnx.merge(graphdef, params, rest, copy=True)(X))

    fn = jax.jit(kdopt.value_and_grads(losses_fn))
    for _ in range(3):
        values, grads = fn(nnx.state(model, nnx.Param))
        optimizer.update(model, grads, values=values)
        values, grads = fn(params)
        updates, state = tx.update(grads, state, params, values=values)
        params = optax.apply_updates(params, updates)
    got = nnx.state(model, nnx.Param)
    chex.assert_trees_all_close(nnx.to_pure_dict(got), nnx.to_pure_dict(params))


# The shared mode


def frame():
    """An orthonormal matrix: a linear map that preserves all angles."""
    return jnp.asarray(
        np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0], jnp.float32
    )


METHODS = {
    "min_norm": kdopt.min_norm,
    "dto_kd": kdopt.dto_kd,
    "safe": functools.partial(kdopt.dynamic_lambda, policy="safe"),
}


@pytest.mark.parametrize("method", METHODS)
def test_shared_mode_is_exact_for_an_isometry(method):
    def encode_fn(params, x):
        return x @ params

    def losses_fn(params, z, x):
        return jnp.sum((z - 1) ** 2), jnp.sum(jnp.sin(2 * z))

    def both(params, x):
        return losses_fn(params, encode_fn(params, x), x)

    tx, params = METHODS[method](), jnp.array([1.0, -1.0, 0.5, 2.0])
    fn = kdopt.value_and_shared_grad(encode_fn, losses_fn, tx)
    values, got, state = jax.jit(fn)(params, frame(), state=tx.init(params))
    exact_values, grads = jax.jit(kdopt.value_and_grads(both))(params, frame())
    expected, exact = jax.jit(tx.update)(
        grads, tx.init(params), params, values=exact_values
    )
    chex.assert_trees_all_close((values, got), (exact_values, expected), rtol=1e-4)
    chex.assert_trees_all_close(state, exact, rtol=1e-4)


def test_shared_mode_is_the_weighted_gradient_at_its_weights():
    """Parameters of the heads too, whether one loss uses them or both."""
    params = {
        "encoder": jnp.asarray(_samplers.generic(0, 3), jnp.float32),
        "head": jnp.array([1.0, -2.0, 0.5, 0.1, 3.0, -1.0]),
        "both": jnp.array(0.7),
    }
    x = jnp.asarray(_samplers.generic(1, 5)[:, :3], jnp.float32)

    def encode_fn(p, x):
        return {"z": jnp.tanh(x @ p["encoder"])}, {"batch": x}

    def losses_fn(p, shared, x):
        z = shared["z"] * p["both"]
        return jnp.mean(z**2), jnp.mean((z @ p["head"] - 1) ** 2)

    tx = kdopt.dto_kd()
    fn = kdopt.value_and_shared_grad(encode_fn, losses_fn, tx, has_aux=True)
    (values, aux), got, state = jax.jit(fn)(params, x, state=tx.init(params))

    def whole(p, x):
        return losses_fn(p, encode_fn(p, x)[0], x)

    expected_values, expected = jax.jit(kdopt.value_and_weighted_grad(whole))(
        params, x, weights=state.loss_weights
    )
    chex.assert_trees_all_close(
        (values, got), (expected_values, expected), rtol=1e-5, atol=1e-6
    )
    chex.assert_trees_all_equal(aux, {"batch": x})
    assert np.max(np.abs(got["head"])) > 0

    @jax.jit
    def gram_at_z(params, x):
        shared, _ = encode_fn(params, x)
        _, at_z = kdopt.value_and_grads(losses_fn, argnums=1)(params, shared, x)
        return kdopt.gram(at_z)

    # the Gram matrix is that of the gradients at the representation
    np.testing.assert_allclose(state.gram, gram_at_z(params, x), rtol=1e-5)


@pytest.mark.parametrize("flag", [True, False, {"neck": True, "heads": False}])
def test_shared_mode_weighs_the_heads_that_it_is_told_to(flag):
    """Layers of both losses between the representation and the heads of each."""
    params = {
        "encoder": jnp.asarray(_samplers.generic(0, 3), jnp.float32),
        "rest": {"neck": jnp.array(0.7), "heads": (jnp.ones(6), jnp.ones(6) / 3)},
    }
    x = jnp.asarray(_samplers.generic(1, 5)[:, :3], jnp.float32)

    def encode_fn(p, x):
        return jnp.tanh(x @ p["encoder"])

    def losses_fn(p, z, x):
        z = jnp.sin(z * p["rest"]["neck"])
        return tuple(jnp.mean((z @ head - 1) ** 2) for head in p["rest"]["heads"])

    tx = kdopt.dto_kd(rescale="convex")
    mask = flag if isinstance(flag, bool) else {"encoder": True, "rest": flag}
    fn = kdopt.value_and_shared_grad(encode_fn, losses_fn, tx, weigh_heads=mask)
    _, got, state = jax.jit(fn)(params, x, state=tx.init(params))

    def whole(p, x):
        return losses_fn(p, encode_fn(p, x), x)

    @jax.jit
    def weighted_and_plain(params, x, weights):
        _, grads = kdopt.value_and_grads(whole)(params, x)
        return kdopt.combine(grads, weights), kdopt.combine(grads, jnp.ones(2))

    weighted, plain = weighted_and_plain(params, x, state.loss_weights)
    chex.assert_trees_all_close(got["encoder"], weighted["encoder"], rtol=1e-5)
    for name in ("neck", "heads"):
        weighs = flag if isinstance(flag, bool) else flag[name]
        expected = weighted if weighs else plain
        chex.assert_trees_all_close(
            got["rest"][name], expected["rest"][name], rtol=1e-5
        )


def test_a_mask_of_the_heads_is_read_as_that_of_restrict():
    """A function to one serves as well, and one that does not fit is refused."""
    params = {"encoder": jnp.ones(2), "head": jnp.ones(2)}
    tx = kdopt.linear([0.2, 0.8])

    def gradient(mask):
        fn = kdopt.value_and_shared_grad(
            lambda p: p["encoder"],
            lambda p, z: (jnp.sum(z * p["head"]), jnp.sum(z**2)),
            tx,
            weigh_heads=mask,
        )
        return fn(params, state=tx.init(params))[1]

    of_tree = gradient({"encoder": True, "head": False})
    chex.assert_trees_all_equal(
        gradient(lambda p: jax.tree.map(lambda x: x is p["encoder"], p)), of_tree
    )
    np.testing.assert_allclose(of_tree["head"], 1.0)
    np.testing.assert_allclose(gradient(True)["head"], 0.2, rtol=1e-6)
    with pytest.raises(ValueError, match="structure of params, be a prefix"):
        gradient({"head": False})


def test_shared_mode_needs_weights():
    tx = kdopt.dot()
    fn = kdopt.value_and_shared_grad(
        lambda p: p, lambda p, z: (jnp.sum(z), jnp.sum(z**2)), tx
    )
    with pytest.raises(ValueError, match=r"holds the weights.*got a StreamsState"):
        fn(jnp.ones(2), state=tx.init(jnp.ones(2)))
