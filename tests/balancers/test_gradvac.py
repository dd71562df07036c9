"""GradVac: the target cosine is met, PCGrad is its first step."""

import jax
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import GOLDEN, GOLDEN_GRAM, first_step, grams, jacobians

solve = jax.jit(kdopt.gradvac_weights)


def test_first_step_is_pcgrad(x64):
    pcgrad = jax.jit(kdopt.pcgrad_weights)
    for gram in grams(jacobians(2, 4, count=4)):
        weights, _ = solve(gram, np.zeros((2, 2)))
        expected = pcgrad(gram)
        np.testing.assert_allclose(weights, expected, rtol=1e-9)


@pytest.mark.parametrize("target", [-0.5, 0.0, 0.3, 0.9])
def test_turned_gradients_have_the_target_cosine(target, x64):
    """For two losses the update is the sum of two gradients turned on their own."""
    goals = np.full((2, 2), target)
    weights, moved = jax.device_get(solve(GOLDEN_GRAM, goals, beta=0.25))
    cosine = -22 / np.sqrt(18 * 38)
    # The first turned gradient is g_0 plus its share of g_1, and vice versa.
    first, second = weights - 1
    for turned, other in (
        (GOLDEN[0] + second * GOLDEN[1], GOLDEN[1]),
        (GOLDEN[1] + first * GOLDEN[0], GOLDEN[0]),
    ):
        norms = np.linalg.norm(turned) * np.linalg.norm(other)
        np.testing.assert_allclose(turned @ other / norms, target, atol=1e-9)
    np.testing.assert_allclose(moved[0, 1], 0.75 * target + 0.25 * cosine)
    assert moved[0, 0] == target  # a loss has no target with itself


def test_pairs_above_their_target_are_left_alone():
    weights, _ = solve(GOLDEN_GRAM, np.full((2, 2), -0.9))
    np.testing.assert_array_equal(weights, [1.0, 1.0])


def test_state_and_key_of_three():
    balancer = kdopt.gradvac(num_losses=3, key=jax.random.key(1), beta=1.0)
    _, state = first_step(balancer, tuple(jacobians(3, 5, count=1)[0]))
    targets, data = state.inner
    assert np.all(np.abs(targets) <= 1)
    assert np.any(targets != 0)
    assert data.dtype == np.uint32
    with pytest.raises(ValueError, match=r"pass key=jax\.random\.key"):
        kdopt.gradvac(num_losses=3)


@pytest.mark.parametrize("target", [0.99, 0.9999, 1.0])
@pytest.mark.parametrize("cosine", [-0.999, -0.5, 0.0, 0.98])
def test_no_target_makes_an_unbounded_step(target, cosine):
    """A pair that was parallel for long, and now is not."""
    gram = np.array([[1.0, cosine], [cosine, 1.0]])
    weights, moved = jax.device_get(solve(gram, np.full((2, 2), target)))
    # 0.99 / sqrt(1 - 0.99 ** 2) times the sine of the pair, and its cosine
    assert np.all(weights <= 1 + 7.1 * np.sqrt(1 - cosine**2) - cosine)
    assert np.all(weights > 1)
    # the running mean itself goes its way
    np.testing.assert_allclose(moved[0, 1], (target + cosine) / 2, atol=1e-6)
