"""PCGrad: the closed form, the algorithm on vectors, the order."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import batched, grams, jacobians, rates


def surgery(matrix, orders):
    """Algorithm 1 on the gradients themselves."""
    total = 0
    for i, order in enumerate(orders):
        part = matrix[i].copy()
        for j in order:
            if j != i:
                part -= min(part @ matrix[j], 0) / (matrix[j] @ matrix[j]) * matrix[j]
        total = total + part
    return total


def test_closed_form_of_two():
    matrices = jacobians(2, 3)
    gram = grams(matrices)
    diagonal, c = np.diagonal(gram, axis1=1, axis2=2), gram[:, :1, 1]
    expected = 1 + np.maximum(0, -c / diagonal)
    weights = batched(kdopt.pcgrad_weights, gram)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    assert rates(matrices, weights).min() > -1e-5


def test_some_order_of_the_algorithm_gives_the_update(x64):
    matrix = jacobians(3, 4, count=1, seed=3)[0]
    orders = list(itertools.permutations(range(3)))
    possible = [surgery(matrix, o) for o in itertools.product(orders, repeat=3)]
    fn = jax.jit(kdopt.pcgrad_weights)
    seen = set()
    for key in jax.random.split(jax.random.key(0), 12):
        update = np.asarray(fn(matrix @ matrix.T, key)) @ matrix
        distances = np.linalg.norm(np.array(possible) - update, axis=1)
        assert distances.min() < 1e-10
        seen.add(tuple(np.round(update, 6)))
    assert len(seen) > 1, "the order never changed"


def test_the_key_moves_on():
    balancer = kdopt.pcgrad(num_losses=3, key=jax.random.key(0))
    grads = tuple(jacobians(3, 4, count=1)[0])
    update = jax.jit(balancer.update)
    state, datas = balancer.init(jnp.zeros(4)), []
    for _ in range(3):
        _, state = update(grads, state)
        datas.append(tuple(np.asarray(state.inner)))
    assert len(set(datas)) == 3


def test_three_losses_need_a_key():
    with pytest.raises(ValueError, match=r"pass key=jax\.random\.key"):
        kdopt.pcgrad(num_losses=3)
