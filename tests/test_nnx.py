"""The gradient calls for Flax NNX modules: gradients, statistics and random keys."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import kdopt
import kdopt.nnx
from tests import _samplers

pytestmark = pytest.mark.usefixtures("standard")

X = jnp.asarray(_samplers.generic(0, 5)[:, :3], jnp.float32)


class Net(nnx.Module):
    """Everything that a forward pass changes: statistics, keys and sown values."""

    def __init__(self, seed=0):
        rngs = nnx.Rngs(seed)
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(4, 2, rngs=rngs)

    def encode(self, x):
        return self.dropout(self.norm(self.first(x)))

    def head(self, z):
        return self.last(self.dropout(z))

    def __call__(self, x):
        return self.head(self.encode(x))


def losses_of(y):
    return jnp.mean(y**2), jnp.mean(jnp.abs(y - 1))


def losses_fn(model, x):
    return losses_of(model(x))


def assert_same_variables(got, expected):
    """Returns every variable but the parameters: statistics and counts of keys."""
    pairs = zip(
        *(jax.tree.leaves(nnx.state(m, nnx.Not(nnx.Param))) for m in (got, expected)),
        strict=True,
    )
    for a, b in pairs:
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("jit", [nnx.jit, lambda f: f], ids=["jit", "eager"])
def test_grads_and_variables_are_those_of_nnx(jit):
    """One forward pass: dropout draws once, the running mean moves once."""
    model, expected = Net(), Net()
    step = jit(kdopt.nnx.value_and_grads(losses_fn))
    for _ in range(2):
        values, grads = step(model, X)
        for i in range(2):
            copy = expected if i else nnx.clone(expected)
            value, grad = nnx.value_and_grad(lambda m, x, i=i: losses_fn(m, x)[i])(
                copy, X
            )
            np.testing.assert_allclose(values[i], value, rtol=1e-6)
            chex.assert_trees_all_close(
                nnx.to_pure_dict(grads[i]), nnx.to_pure_dict(grad), rtol=1e-5, atol=1e-6
            )
        assert_same_variables(model, expected)


def test_weighted_grad_is_the_combination():
    model, weights = Net(), jnp.array([0.3, 2.0])
    _, grads = kdopt.nnx.value_and_grads(losses_fn)(Net(), X)
    grad_fn = kdopt.nnx.value_and_weighted_grad(
        lambda m, x: (losses_fn(m, x), {"x": x}), has_aux=True
    )
    (_, aux), grad = grad_fn(model, X, weights=weights)
    chex.assert_trees_all_close(
        grad, kdopt.combine(grads, weights), rtol=1e-5, atol=1e-6
    )
    chex.assert_trees_all_equal(aux, {"x": X})
    assert_same_variables(model, _after(losses_fn))


def _after(fn):
    model = Net()
    fn(model, X)
    return model


@pytest.mark.parametrize("weigh_heads", [True, False])
def test_shared_grad(weigh_heads):
    """The head sees the keys as the encoder left them, and both are written back."""
    model, balancer = Net(), kdopt.min_norm()
    grad_fn = kdopt.nnx.value_and_shared_grad(
        lambda m, x: m.encode(x),
        lambda m, z, x: losses_of(m.head(z)),
        balancer,
        weigh_heads=weigh_heads,
    )
    state = balancer.init(nnx.state(model, nnx.Param))
    values, grads, state = nnx.jit(grad_fn)(model, X, state=state)
    expected_values, per_loss = kdopt.nnx.value_and_grads(losses_fn)(Net(), X)
    np.testing.assert_allclose(values, expected_values, rtol=1e-6)
    weighted = kdopt.combine(per_loss, state.loss_weights)
    plain = kdopt.combine(per_loss, jnp.ones(2))
    expected = {
        name: (weighted if weigh_heads or name != "last" else plain)[name]
        for name in weighted
    }
    chex.assert_trees_all_close(
        {name: nnx.to_pure_dict(grads[name]) for name in grads},
        {name: nnx.to_pure_dict(tree) for name, tree in expected.items()},
        rtol=1e-5,
        atol=1e-6,
    )
    assert_same_variables(model, _after(losses_fn))


def test_training_with_an_nnx_optimizer():
    model = Net()
    tx = optax.chain(kdopt.dto_kd(rescale="convex"), optax.adam(0.01))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        values, grads = kdopt.nnx.value_and_grads(losses_fn)(model, x)
        optimizer.update(model, grads, values=values)
        return values, kdopt.loss_weights(optimizer.opt_state)

    first, weights = step(model, optimizer, X)
    for _ in range(30):
        values, weights = step(model, optimizer, X)
    assert float(values.sum()) < float(first.sum())
    np.testing.assert_allclose(kdopt.loss_weights(optimizer.opt_state), weights)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)


SCALARIZERS = {
    "famo": kdopt.famo(signal="next"),
    "dto_kd_amortized": kdopt.dto_kd_amortized(),
    "dwa": kdopt.dwa(window=1),
}


@pytest.mark.parametrize("name", SCALARIZERS)
def test_weights_of_a_scalarizer_in_an_nnx_optimizer(name):
    """NNX wraps every array of the state in a variable."""
    tx = optax.chain(optax.sgd(0.1), SCALARIZERS[name])
    optimizer = nnx.Optimizer(Net(), tx, wrt=nnx.Param)
    values = jnp.array([1.0, 4.0])
    got = kdopt.loss_weights(optimizer.opt_state, values)
    plain = tx.init(nnx.state(Net(), nnx.Param))
    np.testing.assert_allclose(got, kdopt.loss_weights(plain, values), rtol=1e-6)


@pytest.mark.parametrize(
    "holder", [lambda m: m, lambda m: {"student": m}, lambda m: [m]]
)
def test_the_plain_calls_refuse_modules(holder):
    """These would differentiate running statistics, and lose what changes."""
    model, balancer = holder(Net()), kdopt.min_norm()
    calls = {
        "grads": lambda: kdopt.value_and_grads(losses_fn)(model, X),
        "weighted": lambda: kdopt.value_and_weighted_grad(losses_fn)(
            model, X, weights=jnp.ones(2)
        ),
        "shared": lambda: kdopt.value_and_shared_grad(losses_fn, losses_fn, balancer)(
            model, X, state=balancer.init({})
        ),
    }
    for call in calls.values():
        with pytest.raises(
            TypeError, match=r"Net.* flax\.nnx module.*kdopt\.nnx|kdopt\.nnx"
        ):
            call()
