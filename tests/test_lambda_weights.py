"""Weights of two losses in single precision, against a dense search in double."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import _lambda_weights
from tests._turns import in_turn

rate_weights = jax.jit(_lambda_weights.rate_weights)
harmless_weights = jax.jit(_lambda_weights.harmless_weights)
vertex_weights = jax.jit(_lambda_weights.vertex_weights)

GRID = np.concatenate([np.geomspace(1e-12, 0.5, 100_000), [0.0]])
PAIRS = np.concatenate(
    [np.column_stack([1 - GRID, GRID]), np.column_stack([GRID, 1 - GRID])]
)
"""Weights of both losses, dense at both ends."""


def pairs():
    """Norms alike, equal, and unlike by up to 1e9; cosines up to nearly parallel."""
    rng = np.random.default_rng(0)
    for cosine in (-1 + 1e-3, -0.5, 0.0, 0.9, 1 - 1e-3, 1 - 1e-6, 1.0):
        for ratio in (1.0, 1 + 1e-6, 1 + 1e-3, 7.0, 1e-3, 1e9, 1e-9):
            first = rng.normal(size=4)
            other = rng.normal(size=4)
            first, other = first / np.linalg.norm(first), other - other @ first * first
            other /= np.linalg.norm(other)
            second = cosine * first + np.sqrt(1 - cosine**2) * other
            scale = 10 ** rng.uniform(-6, 6)
            rows = scale * np.stack([first, ratio * second])
            yield pytest.param(rows, id=f"{cosine:.6g}-{ratio:.6g}")


@pytest.fixture(params=pairs())
def rows(request):
    return request.param


def single(rows):
    return jnp.asarray(rows @ rows.T, jnp.float32)


def rate(rows, pair):
    return np.sum((pair @ rows) ** 2, axis=-1)


def terms(rows, pair):
    """The size of the terms of a rate, which sets its rounding error."""
    return (np.abs(pair) @ np.linalg.norm(rows, axis=1)) ** 2


@pytest.mark.parametrize("previous", in_turn([0.0, 0.3, 0.5, 1.0], 1, of=2))
def test_rate_comes_as_near_as_any(rows, previous):
    """If several do, the previous weights decide."""
    rates = rate(rows, PAIRS)
    before = np.array([1 - previous, previous])
    for target in (0.5 * rates.min(), np.sqrt(rates.min() * rates.max() + 1e-36)):
        both = jnp.full(2, target, jnp.float32)
        got = np.asarray(rate_weights(single(rows), both, jnp.float32(before)), float)
        np.testing.assert_allclose(got.sum(), 1, rtol=1e-6)
        allowed = 1e-5 * (terms(rows, got) + target)
        miss = abs(rate(rows, got) - target)
        assert miss <= np.min(np.abs(rates - target)) + allowed
        # no clearly equally good pair is clearly nearer
        good = np.abs(rates - target) <= 1e-7 * target
        if np.any(good):
            nearest = np.min(np.abs(PAIRS[good][:, 1] - previous))
            assert abs(got[1] - previous) <= nearest + 2e-3


@pytest.mark.parametrize("target", [0.9, 1.0, 1.5])
@pytest.mark.parametrize("previous", [0.2, 0.7])
def test_out_of_reach_with_equal_norms_the_nearer_end(target, previous):
    """Both ends attain the maximum, and nothing between them does."""
    gram = jnp.array([[0.8, -0.3], [-0.3, 0.8]])
    got = rate_weights(
        gram, jnp.full(2, target), jnp.array([1 - previous, previous], jnp.float32)
    )
    np.testing.assert_array_equal(got[1], float(previous > 0.5))


def test_a_flat_parabola_is_a_line():
    """Equal except for the length of one: the rate goes from 1 to 1.002."""
    row = np.array([0.6, 0.8])
    rows = np.stack([row, 1.001 * row])
    for share in (0.1, 0.5, 0.8):
        target = (1 + 1e-3 * share) ** 2
        got = rate_weights(
            single(rows), jnp.full(2, target, jnp.float32), jnp.array([0.0, 1.0])
        )
        np.testing.assert_allclose(got[1], share, atol=2e-3)


def test_equal_gradients_keep_the_previous_weights():
    got = rate_weights(jnp.ones((2, 2)), jnp.ones(2), jnp.array([0.7, 0.3]))
    np.testing.assert_allclose(got, [0.7, 0.3], rtol=1e-6)


def cosines(rows, pair):
    update = pair @ rows
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(update)
    return rows @ update / np.where(norms > 0, norms, 1)


def test_vertex_has_the_least_rate(rows):
    got = np.asarray(vertex_weights(single(rows), 0.0, jnp.array([0.5, 0.5])), float)
    allowed = 1e-6 * terms(rows, got)
    assert rate(rows, got) <= np.min(rate(rows, PAIRS)) + allowed
    assert np.all(cosines(rows, got) >= -1e-5)


@pytest.mark.parametrize("wanted", in_turn([0.0, 0.5, 0.9, 1.0], 0, of=2))
def test_harmless_weights_are_the_nearest(rows, wanted):
    start = np.array([1 - wanted, wanted])
    got = np.asarray(harmless_weights(single(rows), jnp.float32(start)), float)
    assert np.all(cosines(rows, got) >= -1e-5)
    harmless = np.min(PAIRS @ (rows @ rows.T), axis=1) >= 0
    # with a task gradient 1e9 times as long they lie between two points of the grid
    away = np.abs(PAIRS[harmless][:, 1] - wanted)
    assert abs(got[1] - wanted) <= np.min(away, initial=1) + 1e-5
