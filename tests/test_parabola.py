"""Edges of the parabola; its closed forms against brute force are in test_golden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt

GRAM = jnp.array([[38.0, -22.0], [-22.0, 18.0]])

lambda_vertex = jax.jit(kdopt.lambda_vertex)

FUNCTIONS = {
    "loss_decrease": lambda gram: kdopt.loss_decrease(gram, 0.5),
    "lambda_vertex": kdopt.lambda_vertex,
    "harm_free_interval": kdopt.harm_free_interval,
    "lambda_roots": lambda gram: kdopt.lambda_roots(gram, 1.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_two_losses_only(name):
    with pytest.raises(ValueError, match=r"expected a gram of shape \(2, 2\)"):
        FUNCTIONS[name](jnp.eye(3))


def test_ridge_draws_to_the_center(x64):
    """The minimiser of ``D + eps (lambda - center)^2``, by a fine grid."""
    gram, ridge, center = np.float64(GRAM), 0.3, 0.9
    grid = np.linspace(0, 1, 100_001)
    decrease = np.asarray(jax.jit(kdopt.loss_decrease)(gram, grid))
    cost = decrease + ridge * 56 * (grid - center) ** 2
    got = lambda_vertex(gram, ridge=ridge, center=center)
    np.testing.assert_allclose(got, grid[np.argmin(cost)], atol=1e-5)


@pytest.mark.parametrize("norm", [1e-18, 1.0, 1e18])
def test_equal_gradients_give_the_center(norm):
    gram = np.full((2, 2), norm**2, np.float32)
    assert lambda_vertex(gram, center=0.7) == np.float32(0.7)
    assert lambda_vertex(gram, ridge=1e-3, center=0.7) == np.float32(0.7)


def test_vertex_is_outside_if_gradients_agree_too_well():
    """c > min(a, b): here 2 and 1."""
    assert lambda_vertex(np.float32([[1, 2], [2, 9]])) < 0
    assert lambda_vertex(np.float32([[9, 2], [2, 1]])) > 1


def test_ends_of_the_interval_are_orthogonal_to_a_gradient():
    rows = np.float32([[6, 1, 1], [-4, 1, 1]])
    low, high = map(np.asarray, jax.jit(kdopt.harm_free_interval)(rows @ rows.T))
    np.testing.assert_allclose(
        rows[1] @ ((1 - low) * rows[0] + low * rows[1]), 0, atol=1e-4
    )
    np.testing.assert_allclose(
        rows[0] @ ((1 - high) * rows[0] + high * rows[1]), 0, atol=1e-4
    )


@pytest.mark.parametrize("entry", [0.0, 2.0])
def test_interval_is_everything_without_conflict(entry):
    gram = np.float32([[3, entry], [entry, 5]])
    assert jax.jit(kdopt.harm_free_interval)(gram) == (0, 1)
