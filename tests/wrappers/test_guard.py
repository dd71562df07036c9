"""guard: no loss rises behind any optimiser, and nothing changes where none would."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from tests.balancers._inputs import first_step

pytestmark = pytest.mark.usefixtures("standard")

OPTIMISERS = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "nesterov": lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: optax.adam(0.1),
    "adamw": lambda: optax.adamw(0.1, weight_decay=0.3),
    "muon": lambda: optax.contrib.muon(0.1),
    "lion": lambda: optax.lion(0.1),
}
PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.full(2, 0.5)}
STEPS = 30


def batches(k, dtype=jnp.float32, steps=STEPS, seed=0):
    """Gradients of a step, K trees with the steps in front: many conflicts."""
    rng = np.random.default_rng([k, seed])
    scales = 10 ** rng.uniform(-2, 2, size=k)

    def tree(i):
        return jax.tree.map(
            lambda x: (scales[i] * rng.normal(size=(steps, *x.shape))).astype(dtype),
            PARAMS,
        )

    return tuple(tree(i) for i in range(k))


def run(tx, grads, params=PARAMS):
    def step(state, grads):
        updates, state = tx.update(grads, state, params)
        return state, (updates, state)

    return jax.jit(lambda g: jax.lax.scan(step, tx.init(params), g))(grads)


def run_both(tx, k, grads):
    """Under the guard and under one that only watches, by one program.

    Two programs may round differently.
    """

    def program(act, grads):
        return run(kdopt.guard(tx, num_losses=k, act=act), grads)

    program = jax.jit(program)
    return program(np.array(True), grads), program(np.array(False), grads)


def rows(tree):
    """One row a step."""
    leaves = [np.asarray(x, float) for x in jax.tree.leaves(tree)]
    return np.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)


def chain(name, k):
    return optax.chain(kdopt.min_norm(num_losses=k), OPTIMISERS[name]())


def chains():
    """Two losses and four in turn."""
    for i, name in enumerate(OPTIMISERS):
        for j, k in enumerate((2, 4)):
            marks = [] if i % 2 == j else [pytest.mark.slow]
            yield pytest.param(name, k, marks=marks)


@pytest.mark.parametrize(("name", "k"), list(chains()))
def test_no_loss_rises(name, k):
    grads = batches(k)
    (final, (updates, _)), (_, (free, _)) = run_both(chain(name, k), k, grads)
    moves = rows(updates)
    for grad in grads:
        g = rows(grad)
        size = np.linalg.norm(g, axis=1) * np.linalg.norm(rows(free), axis=1)
        assert np.all(np.sum(g * moves, axis=1) <= 1e-5 * size)
    # never longer; and where the chain's own update raises nothing, that
    assert np.all(
        np.linalg.norm(moves, axis=1) <= (1 + 1e-5) * np.linalg.norm(rows(free), axis=1)
    )
    cosines = np.stack(
        [
            -np.sum(rows(g) * rows(free), axis=1)
            / np.linalg.norm(rows(g), axis=1)
            / np.linalg.norm(rows(free), axis=1)
            for g in grads
        ]
    )
    harmless = np.all(cosines > 1e-5, axis=0)
    size = np.abs(rows(free)).max()
    np.testing.assert_allclose(moves[harmless], rows(free)[harmless], atol=1e-5 * size)
    acted = np.sum(np.any(cosines < -1e-5, axis=0))
    assert acted <= final.acted <= np.sum(~harmless)
    assert final.acted > 0 or name == "sgd"
    np.testing.assert_allclose(final.rises, np.sum(cosines < 0, axis=1), atol=2)
    np.testing.assert_allclose(final.cosines, cosines[:, -1], atol=1e-4)


def test_nearest_of_all_harmless_updates(x64):
    k, grads = 3, batches(3, jnp.float64, steps=4)
    params = jax.tree.map(lambda x: x.astype(jnp.float64), PARAMS)
    guarded = kdopt.guard(chain("adam", k), num_losses=k)
    _, (updates, states) = run(guarded, grads, params)
    _, (free, _) = run(chain("adam", k), grads, params)
    rng = np.random.default_rng(0)
    assert states.acted[-1] > 0
    for t in range(4):
        own, mine = rows(free)[t], rows(updates)[t]
        matrix = np.stack([rows(g)[t] for g in grads])
        tries = mine + 0.05 * rng.normal(size=(5000, len(own)))
        harmless = tries[np.all(tries @ matrix.T <= 0, axis=1)]
        assert len(harmless) > 10
        best = np.linalg.norm(harmless - own, axis=1).min()
        assert best >= np.linalg.norm(mine - own) - 1e-12
        np.testing.assert_allclose(states.changes[t], matrix @ mine, atol=1e-9)


def test_watching_changes_nothing():
    grads = batches(2)
    final, (updates, _) = run(kdopt.guard(chain("momentum", 2), act=False), grads)
    _, (expected, _) = run(chain("momentum", 2), grads)
    chex.assert_trees_all_close(updates, expected, rtol=1e-3, atol=1e-6)
    assert final.acted == 0 and final.rises.sum() > 0


def test_absent_and_zero_gradients_forbid_nothing():
    down, up = {"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([-1.0, 0.1])}
    zero = {"w": jnp.array([0.0, 0.0])}
    tx = kdopt.guard(optax.chain(kdopt.linear([1.0, 0.0]), optax.sgd(1.0)))
    step = jax.jit(tx.update)
    for second, present in ((zero, None), (up, [True, False])):
        update, state = step((down, second), tx.init(down), present=present)
        np.testing.assert_array_equal(update["w"], [-1, 0])
        assert state.acted == 0
    update, state = step((down, up), tx.init(down))
    assert state.acted == 1 and up["w"] @ update["w"] <= 1e-6


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_faulty_step_is_the_chain_s_and_is_counted(bad):
    safe = kdopt.skip_nonfinite(chain("adam", 2), 5)
    tx = kdopt.guard(safe)
    good = jax.tree.map(lambda x: x[0], batches(2))
    broken = (good[0], jax.tree.map(lambda x: np.float32(x * bad), good[1]))
    step = jax.jit(tx.update)
    _, state = step(good, tx.init(PARAMS), PARAMS)
    update, after = step(broken, state, PARAMS)
    chex.assert_trees_all_equal(update, jax.tree.map(np.zeros_like, update))
    assert after.notfinite_count == 1
    chex.assert_trees_all_equal(after.cosines, state.cosines)
    chex.assert_trees_all_equal((after.rises, after.acted), (state.rises, state.acted))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype):
    like = jax.tree.map(lambda x: x.astype(dtype), PARAMS)
    grads = jax.tree.map(lambda x: x[0], batches(2, dtype))
    tx = kdopt.guard(chain("momentum", 2))
    update, state = jax.jit(tx.update)(grads, tx.init(like), like)
    chex.assert_trees_all_equal_shapes_and_dtypes(update, like)
    assert state.cosines.dtype == jnp.float32


def test_opposite_gradients_allow_what_is_orthogonal():
    grads = np.float32([2, 1]), np.float32([-2, -1])
    tx = kdopt.guard(optax.chain(kdopt.linear([1.0, 0.0]), optax.sgd(1.0)))
    update, _ = first_step(tx, grads)
    np.testing.assert_allclose(update, 0, atol=1e-6)


def test_state_is_for_as_many_losses():
    grads = (jnp.ones(2),) * 3
    tx = kdopt.guard(chain("sgd", 3), num_losses=2)
    with pytest.raises(ValueError, match="Expected 2 gradient trees"):
        tx.update(grads, tx.init(grads[0]))


def test_diagnostic_says_the_same_as_the_state():
    grads = jax.tree.map(lambda x: x[0], batches(3))
    tx = kdopt.guard(chain("adamw", 3), num_losses=3, act=False)
    update, state = jax.jit(tx.update)(grads, tx.init(PARAMS), PARAMS)
    measure = functools.partial(kdopt.diagnostics.update_effects, names="abc")
    effects = jax.jit(measure)(grads, update)
    for i, name in enumerate("abc"):
        np.testing.assert_allclose(
            effects[f"update/cosine/{name}"], state.cosines[i], rtol=1e-5
        )
        np.testing.assert_allclose(
            effects[f"update/change/{name}"], state.changes[i], rtol=1e-5
        )
        assert effects[f"update/rises/{name}"] == state.rises[i]
