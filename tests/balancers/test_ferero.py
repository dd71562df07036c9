"""FERERO: golden values, optimality against many directions, the way to the ray."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt

# lisha-chen/FERERO e350248, find_min_norm_element_PGD_H, run with c_h = 1, step 0.1.
GOLDEN = [
    ([[1, 0], [0, 1]], [1, 1], [1, 1], [0.5, 0.5]),
    (
        [[1, 0.2], [-0.4, 0.8]],
        [0.5, 1],
        [0.8320502943378436, 0.5547001962252291],
        [0.32584269662951004, 1.0112359550557348],
    ),
    (
        [[0.5, 0.5], [0.6, 0.1]],
        [1, 0.2],
        [0.3939192985791677, 0.9191450300180579],
        [2.6976389946657315, -0.15613099771388494],
    ),
]
solve = jax.jit(kdopt.ferero_weights)


def weights_of(rows, values, preference, **options):
    found = solve(rows @ rows.T, values, preference=preference, **options)
    return np.asarray(found)


@pytest.mark.parametrize(("matrix", "values", "preference", "expected"), GOLDEN)
def test_golden_values(x64, matrix, values, preference, expected):
    rows = np.array(matrix, float)
    got = weights_of(rows, np.array(values, float), np.array(preference, float))
    np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_optimal(x64, k):
    rng = np.random.default_rng(k)
    for _ in range(10):
        rows, values = rng.normal(size=(k, 6)), rng.uniform(0.5, 2, size=k)
        preference = rng.uniform(0.5, 2, size=k)
        update = weights_of(rows, values, preference) @ rows
        unit = preference / np.linalg.norm(preference)
        across = np.eye(k) - np.outer(unit, unit)
        np.testing.assert_allclose(across @ rows @ update, across @ values, atol=1e-9)

        def cost(d, rows=rows):
            return 0.5 * np.sum(d**2, axis=-1) + np.max(-d @ rows.T, axis=-1)

        # every other direction that obeys the constraint
        null = np.linalg.svd(across @ rows)[2][k - 1 :]
        tries = update + rng.normal(size=(3000, len(null))) @ null
        assert cost(update) <= cost(tries).min() + 1e-9


def test_reaches_the_ray():
    """From far off the ray, and then along it to the Pareto front."""

    def losses_fn(x):
        return jnp.sum((x - 1) ** 2) + 0.1, jnp.sum((x + 1) ** 2) + 0.1

    tx = kdopt.ferero(preference=[1.0, 3.0])

    def step(carry, _):
        x, state = carry
        values, grads = kdopt.value_and_grads(losses_fn)(x)
        update, state = tx.update(grads, state, x, values=values)
        return (x - 0.05 * update, state), values

    @jax.jit
    def train(start):
        return jax.lax.scan(step, (start, tx.init(start)), length=500)

    values = np.asarray(train(np.array([-1.0, 0.5]))[1])
    np.testing.assert_allclose(values[-1, 1] / values[-1, 0], 3, rtol=1e-3)
    x = (np.sqrt(values[-1] - 0.1) / np.sqrt(2)).sum()
    np.testing.assert_allclose(x, 2, rtol=1e-2)  # on the segment between the minima
