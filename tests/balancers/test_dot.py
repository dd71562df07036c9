"""DOT: what it is at delta zero, with schedules and in the long run."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from tests import _samplers

GRADS = [_samplers.trees(_samplers.generic(seed, 2), jnp.float32) for seed in range(4)]


def run(tx, grads, jit=jax.jit):
    step, state, updates = jit(tx.update), tx.init(grads[0][0]), []
    for one in grads:
        update, state = step(one, state)
        updates.append(update)
    return updates, state


def test_without_delta_it_is_the_trace_of_the_sum():
    got, _ = run(kdopt.dot(0.9, 0.0), GRADS)
    trace, state = optax.trace(0.9), optax.trace(0.9).init(GRADS[0][0])
    follow = jax.jit(lambda step, state: trace.update(optax.tree.add(*step), state))
    for update, step in zip(got, GRADS, strict=True):
        expected, state = follow(step, state)
        chex.assert_trees_all_close(update, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("silent", [0, 1])
def test_without_delta_and_with_one_loss_it_is_the_trace_to_the_bit(silent):
    zeros = jax.tree.map(jnp.zeros_like, GRADS[0][0])
    grads = [(zeros, step[1]) if silent == 0 else (step[0], zeros) for step in GRADS]
    # Operation by operation: compilers may round two programs in different ways.
    got, _ = run(kdopt.dot(0.9, 0.0), grads, jit=lambda fn: fn)
    trace = optax.trace(0.9)
    state = trace.init(zeros)
    for update, step in zip(got, grads, strict=True):
        expected, state = trace.update(step[1 - silent], state)
        chex.assert_trees_all_equal(update, expected)


def test_momenta_of_the_streams():
    _, got = run(kdopt.dot(0.9, 0.075), GRADS)
    _, expected = run(kdopt.streams((0.9 - 0.075, 0.9 + 0.075)), GRADS)
    chex.assert_trees_all_equal(got, expected)


@pytest.mark.parametrize(
    ("momentum", "delta"),
    [
        (lambda count: 0.5 + 0.1 * count, 0.1),
        (0.6, lambda count: 0.1 * count),
        (lambda count: 0.5 + 0.1 * count, lambda count: 0.1 * count),
    ],
)
def test_schedules_equal_hand_computation(standard, momentum, delta):
    ones = [(jnp.ones(1), jnp.ones(1))] * 4
    _, state = run(kdopt.dot(momentum, delta), ones)
    task = distill = 0.0
    for count in range(4):
        m = momentum(count) if callable(momentum) else momentum
        d = delta(count) if callable(delta) else delta
        task, distill = 1 + (m - d) * task, 1 + (m + d) * distill
    np.testing.assert_allclose(state.traces[0], task, rtol=1e-6)
    np.testing.assert_allclose(state.traces[1], distill, rtol=1e-6)


@pytest.mark.parametrize(("delta", "ratio"), [(0.075, 7), (0.09, 19), (0.05, 3)])
def test_steady_gain_of_a_constant_gradient(x64, delta, ratio):
    """A heavy ball with momentum m amplifies it by 1 / (1 - m)."""
    tx, one = kdopt.dot(0.9, delta), jnp.ones(1)
    scan = jax.jit(
        lambda start: jax.lax.scan(
            lambda s, _: (tx.update((one, one), s)[1], None), start, length=4000
        )[0]
    )
    task, distill = map(np.asarray, scan(tx.init(one)).traces)
    np.testing.assert_allclose(task, 1 / (1 - 0.9 + delta), rtol=1e-10)
    np.testing.assert_allclose(distill, 1 / (1 - 0.9 - delta), rtol=1e-10)
    np.testing.assert_allclose(distill / task, ratio, rtol=1e-10)


def test_parameters_of_one_loss_move_with_plain_momentum():
    """Also where momentum and delta are schedules."""
    params = {"shared": jnp.ones(1), "head": jnp.ones(1)}
    reach = ({"shared": True, "head": True}, {"shared": True, "head": False})
    grads = [(params, {"shared": jnp.ones(1), "head": jnp.zeros(1)})] * 3
    for delta in (0.075, lambda count: jnp.float32(0.075)):
        got, _ = run(kdopt.dot(0.9, delta, reach=reach), grads)
        np.testing.assert_allclose(got[2]["head"], 1 + 0.9 + 0.81, rtol=1e-6)


def test_differs_from_sgd_by_delta_times_the_difference_of_the_buffers():
    """For one step from equal buffers, as the paper's Eq. 9 has it."""
    buffers = (np.array([1.0, 2.0]), np.array([-3.0, 5.0]))
    grads = (np.array([0.1, 0.2]), np.array([0.3, 0.4]))

    @jax.jit
    def updates(buffers, grads):
        state = kdopt.dot().init(grads[0])
        state = state._replace(traces=buffers, count=state.count + 1)
        dots = kdopt.dot(0.9, 0.075), kdopt.dot(0.9, 0.0)
        return [dot.update(grads, state)[0] for dot in dots]

    dot, sgd = jax.device_get(updates(buffers, grads))
    np.testing.assert_allclose(dot - sgd, 0.075 * (buffers[1] - buffers[0]), rtol=1e-5)


@pytest.mark.parametrize(("momentum", "delta"), [(0.9, 0.1), (0.05, 0.1), (0.9, -0.1)])
def test_delta_that_makes_a_stream_unstable(momentum, delta):
    with pytest.raises(ValueError, match=r"A momentum must lie in \[0, 1\)"):
        kdopt.dot(momentum, delta)
