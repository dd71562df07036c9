"""magnitude_match: golden values, other groups, losses that vanish."""

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


@pytest.mark.parametrize(("values", "expected"), GOLDEN)
def test_golden_values(x64, values, expected):
    weights = scalarizers.magnitude_match_weights(jnp.array(values))
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    state = kdopt.magnitude_match(num_losses=3).init(jnp.zeros(1))
    weights = kdopt.loss_weights(state, jnp.array(values))
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_features_matched_to_the_logits():
    """(1 - a) task + a (logits + features of their size)."""
    a, values = 0.75, jnp.array([2.0, 0.5, 8.0])
    weights = scalarizers.magnitude_match_weights(
        values, anchor=1, matched=[False, False, True], shares=[1 - a, a, a]
    )
    np.testing.assert_allclose(weights * values, [0.5, 0.375, 0.375], rtol=1e-6)


def test_without_positive_losses_there_is_no_ratio():
    for values in ([1.0, 0.0], [0.0, 1.0], [-1.0, 2.0], [1.0, -2.0]):
        weights = scalarizers.magnitude_match_weights(jnp.array(values))
        np.testing.assert_array_equal(weights, [1, 1])
    weights = scalarizers.magnitude_match_weights(jnp.array([1.0, 1e-30]))
    np.testing.assert_allclose(weights, [1, 1e8], rtol=1e-6)


def test_the_other_losses_equal_the_anchor():
    values = jnp.array([3.0, 0.1, 20.0, 0.7])
    weights = scalarizers.magnitude_match_weights(values)
    np.testing.assert_allclose(jnp.sum((weights * values)[1:]), 3, rtol=1e-6)


def test_what_is_refused():
    with pytest.raises(ValueError, match="anchor must be the index of one of 2"):
        kdopt.magnitude_match(anchor=2)
    with pytest.raises(ValueError, match="False for the anchor"):
        kdopt.magnitude_match(matched=[True, True])
    with pytest.raises(ValueError, match="shares must be a number or 2"):
        kdopt.magnitude_match(shares=[1.0, 2.0, 3.0])
