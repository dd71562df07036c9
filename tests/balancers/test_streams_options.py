"""Momentum in streams: one buffer per loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from tests._compiler import OPTIMISED

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}


def _grads(seed, k=2):
    rng = np.random.default_rng(seed)
    return tuple(
        {
            "w": rng.normal(size=(2, 3)).astype(np.float32),
            "b": rng.normal(size=3).astype(np.float32),
        }
        for _ in range(k)
    )


def _run(tx, steps=4, k=2):
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    for seed in range(steps):
        updates, state = update(_grads(seed, k), state, PARAMS)
    return updates, state


def _run_summed(tx, steps=4, k=2):
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    for seed in range(steps):
        total = jax.tree.map(lambda *g: sum(g), *_grads(seed, k))
        updates, state = update(total, state, PARAMS)
    return updates


def _assert_close(x, y, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, 1e-6), x, y)


@pytest.mark.parametrize("nesterov", [False, True])
def test_equal_momenta_are_the_trace_of_the_sum(nesterov, standard):
    got, _ = _run(kdopt.streams((0.8, 0.8, 0.8), nesterov=nesterov), k=3)
    _assert_close(got, _run_summed(optax.trace(0.8, nesterov), k=3))


def test_each_stream_is_a_trace_of_its_own(standard):
    """Nesterov, dampening and momentum of one stream leave the others alone."""
    tx = kdopt.streams((0.5, 0.9), nesterov=(True, False), dampening=(0.0, 0.3))
    got, _ = _run(tx)
    look, plain = optax.trace(0.5, nesterov=True), optax.trace(0.9)
    state = look.init(PARAMS), plain.init(PARAMS)
    steps = jax.jit(look.update), jax.jit(plain.update)
    for seed in range(4):
        task, distill = _grads(seed)
        gain = 1.0 if seed == 0 else 0.7
        distill = jax.tree.map(lambda g, gain=gain: np.float32(gain) * g, distill)
        first, a = steps[0](task, state[0])
        second, b = steps[1](distill, state[1])
        state = a, b
    _assert_close(got, jax.tree.map(np.add, first, second))


def test_dampening_is_that_of_pytorch():
    """Golden values: torch.optim.SGD(momentum=0.5, dampening=0.2), gradients of 1."""
    tx = kdopt.streams((0.5,), dampening=0.2)
    step, state = jax.jit(tx.update), tx.init(jnp.zeros(1))
    seen = []
    for _ in range(3):
        updates, state = step((np.ones(1),), state)
        seen.append(np.asarray(updates)[0])
    np.testing.assert_allclose(seen, [1.0, 1.3, 1.45], rtol=1e-6)


def test_normalised_streams_have_no_gain():
    """Steady state of a constant gradient: 1 / (1 - m) without, 1 with."""

    def end(normalize):
        tx = kdopt.dot(0.8, 0.1, normalize=normalize)

        @jax.jit
        def traces(grads):
            def step(state, _):
                return tx.update(grads, state)[1], None

            return jax.lax.scan(step, tx.init(grads[0]), length=300)[0].traces

        return np.ravel(traces((np.ones(1), np.full(1, 10.0))))

    np.testing.assert_allclose(end(True), [1.0, 10.0], rtol=1e-4)
    np.testing.assert_allclose(end(False), [1 / 0.3, 10 / 0.1], rtol=1e-4)


def test_an_element_that_is_not_finite_keeps_its_momentum():
    tx = kdopt.streams((0.5, 0.5))
    step, state = jax.jit(tx.update), tx.init(jnp.zeros(2))
    _, state = step((np.ones(2), np.ones(2)), state)
    bad = np.array([np.nan, 1.0])
    updates, state = step((bad, np.ones(2)), state)
    assert np.isnan(np.asarray(updates)[0])
    np.testing.assert_allclose(state.traces[0], [1.0, 1.5])


def test_one_all_reduce_of_one_tree_is_enough():
    """Buffers of local gradients: the mean of the update is the update of the mean."""
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("x",), axis_types=auto)
    spec = jax.sharding.PartitionSpec("x")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 2, 3, 5))  # device, loss, step

    def run(tx, grads):
        state = tx.init(jnp.zeros(5))
        for step in range(3):
            updates, state = tx.update((grads[0, step], grads[1, step]), state)
        return updates

    def local(grads):
        return run(kdopt.dot(0.8, 0.1, axis_name="x"), grads[0])

    mapped = jax.jit(
        jax.shard_map(
            local, mesh=mesh, in_specs=spec, out_specs=jax.sharding.PartitionSpec()
        )
    )
    expected = jax.jit(functools.partial(run, kdopt.dot(0.8, 0.1)))(rows.mean(axis=0))
    np.testing.assert_allclose(mapped(rows), expected, rtol=1e-5)
    # Only the last update is used here, so only its all-reduce is left.
    assert mapped.lower(rows).compile(OPTIMISED).as_text().count(" all-reduce(") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"momenta": ()}, "one coefficient per loss, got none"),
        ({"momenta": (1.0,)}, r"must lie in \[0, 1\), got 1"),
        ({"momenta": (0.5,), "dampening": 2.0}, r"dampening must lie in \[0, 1\]"),
        ({"momenta": (0.5,), "dampening": (0.1, 0.2)}, "one setting or 1 of them"),
        (
            {"momenta": (0.5,), "dampening": 0.1, "nesterov": True},
            "cannot be combined with nesterov",
        ),
        (
            {"momenta": (0.5,), "dampening": 0.1, "normalize": True},
            "cannot be combined with nesterov",
        ),
    ],
)
def test_bad_arguments_say_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        kdopt.streams(**arguments)
