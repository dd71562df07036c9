"""MultiAdam and MTAdam: Adam for one loss, and against programs in numpy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from tests.balancers._inputs import first_step

pytestmark = pytest.mark.usefixtures("standard")

LIKE = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}


def gradients(k, steps=5, seed=0):
    rng = np.random.default_rng(seed)

    def tree(size):
        return jax.tree.map(lambda x: size * rng.normal(size=x.shape), LIKE)

    return [tuple(map(tree, np.geomspace(0.1, 100, k))) for _ in range(steps)]


def run(tx, steps, dtype=jnp.float32):
    update, state = jax.jit(tx.update), tx.init(LIKE)
    out = []
    for grads in steps:
        one, state = update(jax.tree.map(lambda x: np.asarray(x, dtype), grads), state)
        out.append(one)
    return out


@pytest.mark.parametrize("name", ["multi_adam", "mt_adam"])
def test_of_one_loss_it_is_adam(name):
    steps = gradients(1)
    got = run(getattr(kdopt, name)(0.1, num_losses=1), steps)
    expected = run(optax.adam(0.1), [grads[0] for grads in steps])
    chex.assert_trees_all_close(got, expected, rtol=1e-5)


def literal(steps, key, shared, b1=0.9, b2=0.999, b3=0.9, eps=1e-8):
    """One leaf, step by step."""
    k = len(steps[0])
    m, v, n = np.zeros((k, *LIKE[key].shape)), np.zeros((k, *LIKE[key].shape)), None
    out = []
    for t, grads in enumerate(steps, 1):
        g = np.stack([tree[key] for tree in grads])
        if shared:
            norms = np.sqrt((g.reshape(k, -1) ** 2).sum(axis=1))
            n = norms if n is None else b3 * n + (1 - b3) * norms
            g = g * (n[0] / n).reshape(-1, *[1] * (g.ndim - 1))
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        hat, root = m / (1 - b1**t), np.sqrt(v / (1 - b2**t))
        if shared:
            out.append(hat.sum(axis=0) / (root.max(axis=0) + eps))
        else:
            out.append((hat / (root + eps)).mean(axis=0))
    return out


@pytest.mark.parametrize("name", ["multi_adam", "mt_adam"])
def test_against_a_literal_program(name):
    steps = gradients(3)
    got = run(getattr(kdopt, f"scale_by_{name}")(num_losses=3), steps)
    for key in LIKE:
        expected = literal(steps, key, name == "mt_adam")
        for mine, theirs in zip(got, expected, strict=True):
            np.testing.assert_allclose(mine[key], theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["multi_adam", "mt_adam"])
def test_factors_of_the_other_losses_do_not_matter(name):
    steps = gradients(2)
    scaled = [(a, jax.tree.map(lambda x: 1e6 * x, b)) for a, b in steps]
    factory = getattr(kdopt, f"scale_by_{name}")
    chex.assert_trees_all_close(
        run(factory(), steps), run(factory(), scaled), rtol=1e-4, atol=1e-5
    )


def test_an_element_with_a_fault_is_held():
    tx = kdopt.scale_by_multi_adam()
    ones = {"w": np.ones(2)}
    _, state = first_step(tx, (ones, ones))
    bad = {"w": np.array([np.nan, 1.0])}
    update, after = jax.device_get(jax.jit(tx.update)((bad, ones), state))
    assert np.isnan(update["w"][0]) and update["w"][1] > 0
    for i in range(2):
        assert after.mu[i]["w"][0] == state.mu[i]["w"][0]
        assert after.nu[i]["w"][0] == state.nu[i]["w"][0]


def test_a_leaf_that_the_first_loss_does_not_reach():
    tx = kdopt.scale_by_mt_adam()
    head = {"w": np.zeros(2)}, {"w": np.array([5.0, -5.0])}
    update, state = first_step(tx, head)
    np.testing.assert_allclose(update["w"], [1, -1], rtol=1e-5)
    assert state.norms[0][0] == 0
