"""MGDA: brute force over faces, optimality, normalisations, edge cases."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from kdopt._simplex import affine_min_norm_point, project_simplex
from tests.balancers._inputs import GOLDEN_GRAM, batched, first_step, grams, jacobians

solve = jax.jit(kdopt.min_norm_weights, static_argnames="normalize")


def least_norm(gram):
    """The least squared norm over the stationary points of all faces."""
    k, best = len(gram), np.inf
    for size in range(1, k + 1):
        for face in itertools.combinations(range(k), size):
            system = np.ones((size + 1, size + 1))
            system[:size, :size], system[size, size] = gram[np.ix_(face, face)], 0
            target = np.zeros(size + 1)
            target[size] = 1
            part = np.linalg.lstsq(system, target, rcond=1e-14)[0][:size]
            if (part >= -1e-12).all():
                best = min(best, part @ gram[np.ix_(face, face)] @ part)
    return best


@pytest.mark.parametrize(("k", "n"), [(2, 6), (3, 2), (4, 9), (5, 3), (6, 20)])
def test_norm_is_the_least_over_all_faces(k, n):
    matrices = jacobians(k, n, count=16)
    weights = batched(kdopt.min_norm_weights, grams(matrices))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    assert (weights >= 0).all()
    for gram, w in zip(grams(matrices), weights, strict=True):
        excess = w @ gram @ w - least_norm(gram)
        assert abs(excess) <= 1e-6 * gram.diagonal().min()


def test_many_losses_of_very_different_length_satisfy_kkt():
    """Each product with the update is at least its squared norm."""
    matrices = jacobians(12, 30, spread=6.0)
    weights = batched(kdopt.min_norm_weights, grams(matrices))
    updates = np.einsum("ck,ckn->cn", weights, matrices)
    products = np.einsum("ckn,cn->ck", matrices, updates)
    squares = np.sum(updates**2, axis=1, keepdims=True)
    norms = np.linalg.norm(matrices, axis=-1)
    # In units of each gradient's length and that of the update.
    slack = (products - squares) / norms / np.sqrt(squares)
    assert slack.min() > -1e-4


def test_solves_to_rounding_in_double(x64):
    matrices = jacobians(8, 12, count=16)
    weights = batched(kdopt.min_norm_weights, grams(matrices))
    products = np.einsum("cij,cj->ci", grams(matrices), weights)
    squares = np.einsum("ci,ci->c", products, weights)[:, None]
    assert (products >= squares * (1 - 1e-9)).all()
    tight = np.where(weights > 1e-9, products / squares, 1)
    np.testing.assert_allclose(tight, 1, rtol=1e-9)


def test_golden_value():
    weights = solve(GOLDEN_GRAM)
    np.testing.assert_allclose(weights, [0.6, 0.4], rtol=1e-6)


def test_a_zero_gradient_is_left_out():
    gram = np.zeros((3, 3))
    gram[:2, :2] = GOLDEN_GRAM
    np.testing.assert_allclose(solve(gram), [0.6, 0.4, 0.0], atol=1e-6)


@pytest.mark.parametrize("zero", [0, 1])
def test_the_other_of_two_gets_all_the_weight(zero):
    expected = np.arange(2) != zero
    np.testing.assert_array_equal(solve(np.diag(expected.astype(float))), expected)


def test_normalized_by_loss_is_dto_kd():
    gram = grams(jacobians(4, 7, count=1))[0]
    values = np.array([0.1, 3.0, 20.0, 1.0])
    ours = solve(gram, values, normalize="loss")
    theirs = jax.jit(kdopt.dto_kd_weights)(gram, values)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("normalize", ["norm", "loss_and_norm"])
def test_normalized_by_norm_ignores_the_length_of_gradients(normalize):
    matrix = jacobians(4, 7, count=1)[0]
    factors = np.array([1e-3, 1.0, 50.0, 7.0])[:, None]
    values = np.array([1.0, 2.0, 3.0, 4.0])
    updates = [
        np.asarray(solve(m @ m.T, values, normalize=normalize)) @ m
        for m in (matrix, factors * matrix)
    ]
    np.testing.assert_allclose(updates[1], updates[0], rtol=1e-4, atol=1e-6)


def test_normalized_by_loss_asks_for_values():
    with pytest.raises(ValueError, match="needs the loss values"):
        kdopt.min_norm_weights(jnp.eye(2), normalize="loss")
    balancer = kdopt.min_norm(normalize="loss")
    with pytest.raises(ValueError, match="needs the loss values"):
        first_step(balancer, (np.ones(2), np.ones(2)))


@pytest.mark.parametrize("k", [3, 5])
def test_affine_point_has_equal_products(k, x64):
    matrices = jacobians(k, 10, count=8)
    weights = batched(affine_min_norm_point, grams(matrices))
    products = np.einsum("cij,cj->ci", grams(matrices), weights)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-9)
    expected = np.repeat(products[:, :1], k, axis=1)
    np.testing.assert_allclose(products, expected, rtol=1e-7)


def test_affine_point_of_dependent_gradients_is_uniform():
    found = jax.jit(affine_min_norm_point)(np.ones((3, 3)))
    np.testing.assert_allclose(found, np.full(3, 1 / 3))


def test_projection_on_the_simplex():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(64, 5)) * 10 ** rng.uniform(-2, 2, size=(64, 1))
    projected = batched(project_simplex, points)
    np.testing.assert_allclose(projected.sum(axis=1), 1, rtol=1e-5)
    assert (projected >= 0).all()
    # Optimality: no vertex lies further along the residual than the projection.
    residual = points - projected
    gain = residual.max(axis=1) - np.sum(residual * projected, axis=1)
    assert (gain <= 1e-4 * np.abs(points).max(axis=1)).all()


def test_projection_keeps_its_digits_beside_large_numbers():
    found = jax.jit(project_simplex)(np.array([1e30, 1e30, -1e30]))
    np.testing.assert_allclose(found, [0.5, 0.5, 0.0])
