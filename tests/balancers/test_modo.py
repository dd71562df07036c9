"""MoDo: one step by hand, convergence to the min-norm weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import GOLDEN, GOLDEN_GRAM, first_step


def test_one_step_by_hand():
    # start - 0.01 ((-2, 8) + (0.05, 0.05)), then moved along (1, 1) to the sum one
    step = jax.jit(kdopt.modo_weights)
    weights = step(GOLDEN_GRAM, np.array([0.5, 0.5]), gamma=0.01, rho=0.1)
    np.testing.assert_allclose(weights, [0.55, 0.45], rtol=1e-5)


@jax.jit
def many_steps(gram):
    def step(weights, _):
        return kdopt.modo_weights(gram, weights, gamma=0.05, rho=0.0), None

    return jax.lax.scan(step, jnp.full(4, 0.25), length=2000)[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_converges_to_min_norm(seed):
    matrix = np.random.default_rng(seed).normal(size=(4, 6))
    gram = matrix @ matrix.T
    expected = jax.jit(kdopt.min_norm_weights)(gram)
    np.testing.assert_allclose(many_steps(gram), expected, atol=1e-4)


def test_the_weights_are_the_state():
    balancer = kdopt.modo(gamma=0.01, rho=0.0)
    _, state = first_step(balancer, tuple(GOLDEN))
    np.testing.assert_allclose(state.inner, [0.55, 0.45], rtol=1e-5)
    with pytest.raises(ValueError, match="gamma must lie in"):
        kdopt.modo(gamma=0.0)
