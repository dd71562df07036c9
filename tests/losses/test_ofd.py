"""OFD: the cases of the partial distance, and the margin as an expectation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import truncnorm

from kdopt import losses


@pytest.mark.parametrize(
    ("s", "t", "expected"),
    [
        (1.0, 3.0, 4.0),  # the teacher is on
        (5.0, 3.0, 4.0),
        (0.5, -0.5, 1.0),  # between margin and 0: only too much costs
        (-0.7, -0.5, 0.0),
        (0.0, -3.0, 1.0),  # below the margin: the margin is enough
        (-1.0, -3.0, 0.0),
        (-2.0, -3.0, 0.0),
    ],
)
def test_cases(s, t, expected):
    s, t = (np.full((1, 1, 1, 1), x, np.float32) for x in (s, t))
    assert jax.jit(losses.ofd)([s], [t], [jnp.array([-1.0])]) == expected


def test_deeper_stages_weigh_double():
    x, m = np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)
    for shallow, deep, expected in [(3.0, 1.0, 1.0), (1.0, 3.0, 4.0)]:
        # A gap of 2 in one stage of three.
        stages = [np.full_like(x, y) for y in (1.0, shallow, deep)]
        value = jax.jit(losses.ofd)([x] * 3, stages, [m] * 3)
        assert value == expected + (shallow > 1)


def test_margin_is_the_mean_of_the_negative_part():
    scale, bias = np.array([1.0, -0.5, 2.0, 1.0]), np.array([0.0, 0.7, -3.0, 2.9])
    spread = np.abs(scale)
    expected = truncnorm.mean(-np.inf, -bias / spread, loc=bias, scale=spread)
    margin = jax.jit(losses.ofd_margin)(scale, bias)
    np.testing.assert_allclose(margin, expected, rtol=1e-4)


def test_margin_at_the_ends():
    scale, bias = jnp.array([1.0, 1.0, 0.0, 0.0]), jnp.array([50.0, -1e4, 2.0, -2.0])
    margin = jax.jit(losses.ofd_margin)(scale, bias)
    np.testing.assert_allclose(margin, [-3, -1e4, 0, -2], rtol=1e-6)
    slope = jax.jit(jax.grad(lambda x: losses.ofd_margin(x, bias).sum()))(scale)
    assert np.isfinite(slope).all()


def test_margins_must_pair():
    x = jnp.ones((1, 1, 1, 1))
    with pytest.raises(ValueError, match="one array per stage, got 0 for 1"):
        losses.ofd([x], [x], [])
