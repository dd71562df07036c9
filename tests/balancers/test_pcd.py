"""PCD: golden values of TorchJD, closed form of two, where the task loss rises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests.balancers._golden_pcd import CASES, SEQUENCE, sines

BY_UPDATE = {"L_parallel_secondaries"}
"""Cases whose weights are not unique: two gradients are parallel."""


solve = jax.jit(kdopt.pcd_weights, static_argnames="relative_eps")


def weights_of(matrix, tau, dtype=None, **options):
    rows = np.array(matrix, float)
    taus = np.broadcast_to(np.asarray(tau, dtype), len(rows) - 1)
    gram = np.asarray(rows @ rows.T, dtype)
    return np.asarray(solve(gram, tau=taus, **options), float), rows


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("relative_eps", [True, False])
def test_golden_values(x64, name, relative_eps):
    matrix, tau, expected = CASES[name]
    got, rows = weights_of(matrix, tau, relative_eps=relative_eps)
    if relative_eps and name == "M_scaled":
        # Where the absolute one hides a short row, the weights are those of rows
        # of ordinary length.
        ordinary, _ = weights_of([[-4, 1, 1], [6, 1, 1]], tau)
        np.testing.assert_allclose(got, ordinary * [1, 1e-9], rtol=1e-6)
        return
    if name in BY_UPDATE:
        got, expected = got @ rows, expected @ rows
    np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", sorted({*CASES} - {"M_scaled", *BY_UPDATE}))
def test_golden_values_in_single_precision(name):
    matrix, tau, expected = CASES[name]
    got, _ = weights_of(matrix, tau, jnp.float32)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_running_means_of_the_norms(x64):
    tx = kdopt.pcd(num_losses=3, tau=0.2, decay=0.9, relative_eps=False)
    state, update = jax.jit(tx.init)(np.zeros(6)), jax.jit(tx.update)
    for t, expected in enumerate(SEQUENCE):
        rows = np.array([1 + t, 0.5**t, 1])[:, None] * sines(3, 6)
        _, state = update(tuple(rows), state)
        np.testing.assert_allclose(state.loss_weights, expected, rtol=1e-12)


def pair(cosine, ratio):
    return np.array([1.0, 0.0]), ratio * np.array([cosine, (1 - cosine**2) ** 0.5])


@pytest.mark.parametrize("tau", [0.02, 0.5, 1.0])
def test_closed_form_of_two(x64, tau):
    least = (tau - (tau**2 + 4) ** 0.5) / 2
    tx = kdopt.pcd(tau=tau, eps=0.0)
    step = jax.jit(lambda grads: tx.update(grads, tx.init(grads[0])))
    for cosine in (-0.999, least - 1e-3, least + 1e-3, -0.3, tau - 1e-3, tau + 1e-3):
        if cosine > 1:
            continue
        grads = pair(cosine, 3.0)
        update, state = jax.device_get(step(grads))
        length = (1 - cosine**2 + tau**2) ** 0.5
        expected = (1, (tau - cosine) / 3) / np.float64(length)
        expected = expected if cosine < tau else np.array([1, 0])
        np.testing.assert_allclose(state.loss_weights, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(update), 1, rtol=1e-9)
        rises = cosine < least
        assert (grads[0] @ update < 0) == rises
        assert bool(state.inner.counts.task_rises) == rises


@pytest.mark.parametrize("on_conflict", ["allow", "relax", "drop"])
def test_the_task_rises_only_if_allowed(x64, on_conflict):
    rng = np.random.default_rng(0)
    tx = kdopt.pcd(num_losses=3, tau=0.5, on_conflict=on_conflict, decay=0.0)
    rows = rng.normal(size=(200, 3, 3))

    def step(state, rows):
        update, state = tx.update(tuple(rows), state)
        return state, rows[0] @ update

    scan = jax.jit(lambda xs: jax.lax.scan(step, tx.init(xs[0, 0]), xs))
    state, falls = scan(jnp.asarray(rows))
    assert state.inner.counts.task_rises > 10
    assert bool(np.min(falls) < -1e-2) == (on_conflict == "allow")


def test_factors_of_losses_do_not_matter(x64):
    rows = np.array(sines(4, 6))
    factors = np.array([1, 1e-6, 1e3, 10.0])
    first, scaled = (
        weights_of(rows, 0.2)[0],
        weights_of(factors[:, None] * rows, 0.2)[0],
    )
    np.testing.assert_allclose(scaled * factors, first, rtol=1e-9)
