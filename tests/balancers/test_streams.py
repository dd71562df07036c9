"""Momentum in streams: schedules, dtypes, reach and what is refused."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from tests import _samplers

GRADS = [_samplers.trees(_samplers.generic(seed, 3), jnp.float32) for seed in range(3)]
PARAMS = GRADS[0][0]


def run(tx, grads=GRADS, params=PARAMS):
    step, state, updates = jax.jit(tx.update), tx.init(params), []
    for one in grads:
        update, state = step(one, state, params)
        updates.append(update)
    return updates, state


def test_every_stream_is_a_trace_of_its_own():
    momenta = (0.5, 0.0, 0.9)
    updates, state = run(kdopt.streams(momenta))
    for i, momentum in enumerate(momenta):
        _, alone = run(optax.trace(momentum), [step[i] for step in GRADS])
        chex.assert_trees_all_close(state.traces[i], alone.trace, rtol=1e-6)
    total = jax.tree.map(lambda *x: np.sum(x, axis=0), *state.traces)
    chex.assert_trees_all_close(updates[-1], total, rtol=1e-5, atol=1e-6)
    assert state.count == 3


@pytest.mark.parametrize("dampening", [0.25, jnp.float32(0.25)])
def test_dampening_spares_the_first_step(dampening):
    tx = kdopt.streams((0.5,), dampening=dampening)
    updates, _ = run(tx, [(jnp.ones(1),)] * 3, jnp.ones(1))
    np.testing.assert_allclose(np.ravel(updates), [1, 1.25, 1.375])


def test_schedules_are_asked_at_the_count_of_steps():
    tx = kdopt.streams((lambda count: jnp.array([0.0, 0.5, 0.25])[count],))
    updates, _ = run(tx, [(jnp.ones(1),)] * 3, jnp.ones(1))
    np.testing.assert_allclose(np.ravel(updates), [1, 1.5, 1.375])


def test_reach_may_be_a_function_and_a_prefix():
    """A leaf of one stream moves with the mean momentum, or the one given."""
    params = {"shared": jnp.ones(1), "head": jnp.ones(1)}
    grads = [({"shared": jnp.ones(1), "head": jnp.ones(1)}, dict(params))] * 2
    zero_head = [(t, {**d, "head": jnp.zeros(1)}) for t, d in grads]

    def reach(p):
        assert p.keys() == params.keys()
        return True, {"shared": True, "head": False}

    for solo, gain in ((None, 0.6), (0.1, 0.1)):
        tx = kdopt.streams((0.4, 0.8), reach=reach, solo_momentum=solo)
        updates, _ = run(tx, zero_head, params)
        np.testing.assert_allclose(updates[1]["head"], 1 + gain, rtol=1e-6)
        np.testing.assert_allclose(updates[1]["shared"], 1.4 + 1.8, rtol=1e-6)


def test_reach_of_another_length():
    tx = kdopt.streams((0.4, 0.8), reach=(True,))
    with pytest.raises(
        ValueError, match="one tree of bools per loss, 2 of them, got 1"
    ):
        tx.update((jnp.ones(1),) * 2, tx.init(jnp.ones(1)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_accumulator_dtype(dtype):
    grads = [(jnp.ones(2, jnp.bfloat16),)] * 3
    tx = kdopt.streams((0.5,), accumulator_dtype=dtype)
    updates, state = run(tx, grads, jnp.ones(2, jnp.bfloat16))
    assert state.traces[0].dtype == dtype
    assert updates[-1].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(state.traces[0], float), 1.75)


def test_float32_buffers_gather_what_bfloat16_ones_lose():
    grads = [(jnp.ones(1, jnp.bfloat16),)] + [(jnp.full(1, 2**-9, jnp.bfloat16),)] * 4
    full, half = (
        run(kdopt.streams((1 - 2**-20,), accumulator_dtype=d), grads, grads[0][0])[1]
        for d in ("float32", "bfloat16")
    )
    np.testing.assert_allclose(full.traces[0], 1 + 4 * 2**-9, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(half.traces[0], float), 1)


def test_bad_elements_hold_their_momentum():
    tx = kdopt.streams((0.5, 0.5))
    grads = (np.array([1.0, 1.0]), np.array([2.0, 2.0]))
    bad = (np.array([np.nan, 1.0]), grads[1])
    (_, update), state = jax.device_get(run(tx, [grads, bad], jnp.zeros(2)))
    assert np.isnan(update[0]) and update[1] == 1.5 + 3
    np.testing.assert_allclose(state.traces[0], [1.0, 1.5])
    np.testing.assert_allclose(state.traces[1], [3.0, 3.0])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"momenta": ()}, "one coefficient per loss, got none"),
        ({"momenta": (0.9, 1.0)}, r"must lie in \[0, 1\), got 1"),
        ({"momenta": (-0.1,)}, r"must lie in \[0, 1\), got -0.1"),
        ({"momenta": (0.9,), "solo_momentum": 2.0}, r"got 2"),
        ({"momenta": (0.9,), "dampening": 1.5}, r"dampening must lie in \[0, 1\]"),
    ],
)
def test_bad_numbers(kwargs, message):
    with pytest.raises(ValueError, match=message):
        kdopt.streams(**kwargs)
