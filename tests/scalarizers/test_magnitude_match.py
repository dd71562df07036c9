"""magnitude_match: golden values, other groups, losses that vanish."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from kdopt import scalarizers

# Our program of LogitsAndIntermediatesLossBalancer, NVIDIA Model-Optimizer a2fbac7.
GOLDEN = [
    ([2.0, 1.0, 0.5], [1, 1, 2]),
    ([1.8, 0.5, 0.5], [1, 1.8, 1.8]),
    ([1.5, 0.4, 0.45], [1, 1.875, 1.6666666666666667]),
    ([1.4, 0.3, 0.2], [1, 2.3333333333333335, 3.5]),
    ([1.0, 0.25, 0.15], [1, 2, 3.3333333333333335]),
]


loss_weights = jax.jit(kdopt.loss_weights)
magnitude_match_weights = jax.jit(scalarizers.magnitude_match_weights)


@pytest.mark.parametrize(("values", "expected"), GOLDEN)
def test_golden_values(x64, values, expected):
    weights = magnitude_match_weights(np.array(values))
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    state = kdopt.magnitude_match(num_losses=3).init(jnp.zeros(1))
    weights = loss_weights(state, np.array(values))
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_features_matched_to_the_logits():
    """(1 - a) task + a (logits + features of their size)."""
    a, values = 0.75, np.float32([2, 0.5, 8])
    fn = functools.partial(
        scalarizers.magnitude_match_weights,
        anchor=1,
        matched=[False, False, True],
        shares=[1 - a, a, a],
    )
    weights = jax.jit(fn)(values)
    np.testing.assert_allclose(weights * values, [0.5, 0.375, 0.375], rtol=1e-6)


def test_without_positive_losses_there_is_no_ratio():
    for values in ([1.0, 0.0], [0.0, 1.0], [-1.0, 2.0], [1.0, -2.0]):
        weights = magnitude_match_weights(np.float32(values))
        np.testing.assert_array_equal(weights, [1, 1])
    weights = magnitude_match_weights(np.float32([1, 1e-30]))
    np.testing.assert_allclose(weights, [1, 1e8], rtol=1e-6)


def test_the_other_losses_equal_the_anchor():
    values = np.float32([3, 0.1, 20, 0.7])
    weights = np.asarray(magnitude_match_weights(values))
    np.testing.assert_allclose(np.sum((weights * values)[1:]), 3, rtol=1e-6)


def test_what_is_refused():
    with pytest.raises(ValueError, match="anchor must be the index of one of 2"):
        kdopt.magnitude_match(anchor=2)
    with pytest.raises(ValueError, match="False for the anchor"):
        kdopt.magnitude_match(matched=[True, True])
    with pytest.raises(ValueError, match="shares must be a number or 2"):
        kdopt.magnitude_match(shares=[1.0, 2.0, 3.0])
