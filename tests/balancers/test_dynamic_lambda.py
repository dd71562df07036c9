"""Each policy against its definition by a fine grid, and the edges of all."""

import itertools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from kdopt.balancers._dynamic_lambda import LambdaPolicy

GRID = np.linspace(0, 1, 100_001)
POLICIES = get_args(LambdaPolicy)


def grams():
    """Conflicting, acute and nearly parallel pairs of unlike norms, task first."""
    rng = np.random.default_rng(0)
    for cosine in (-0.95, -0.4, 0.0, 0.5, 0.97):
        a, b = 10 ** rng.uniform(-1, 1, size=2)
        c = cosine * np.sqrt(a * b)
        yield np.array([[b, c], [c, a]])


solve = jax.jit(kdopt.dynamic_lambda_weights, static_argnames="policy")


def lambda_of(gram, policy, **kwargs):
    values = kwargs.pop("values", None)
    values = None if values is None else np.array(values)
    got = np.asarray(solve(gram, values, policy=policy, **kwargs))
    np.testing.assert_allclose(np.sum(got), 1, rtol=1e-6)
    return float(got[1])


def decrease(gram, lam=GRID):
    w = np.stack([1 - lam, lam])
    return np.einsum("in,ij,jn->n", w, gram, w)


@pytest.fixture(params=range(5))
def gram(request, x64):
    return list(grams())[request.param]


def test_fixed(gram):
    assert lambda_of(gram, "fixed", lambda_=0.3) == 0.3


def test_gradual_is_the_argmin(gram):
    best = GRID[np.argmin(decrease(gram))]
    assert abs(lambda_of(gram, "gradual") - best) < 2e-5


def test_fast_is_the_argmax(gram):
    assert lambda_of(gram, "fast") == GRID[np.argmax(decrease(gram))]


def test_gradual_with_a_ridge(gram):
    ridge = 0.2
    cost = decrease(gram) + ridge * np.trace(gram) * (GRID - 0.8) ** 2
    got = lambda_of(gram, "gradual", ridge=ridge, lambda_=0.8)
    assert abs(got - GRID[np.argmin(cost)]) < 2e-5


def nearest_to(request, previous):
    """Where the request is met, nearest to previous; else where it is missed least."""
    crossings = np.flatnonzero(np.diff(np.sign(request)))
    if len(crossings):
        return GRID[crossings[np.argmin(np.abs(GRID[crossings] - previous))]]
    return GRID[np.argmin(np.abs(request))]


@pytest.mark.parametrize("share", [0.5, 1.2, 0.9, 1.05])
@pytest.mark.parametrize("previous", [0.1, 0.9])
def test_target(gram, share, previous):
    """Below the least attainable, between, and above the greatest."""
    d = decrease(gram)
    for target in (share * d.min(), share * d.max()):
        got = lambda_of(gram, "target", target=target, previous=previous)
        assert abs(got - nearest_to(d - target, previous)) < 3e-5


@pytest.mark.parametrize("values", [(1.0, 3.0), (2.0, 0.5)])
@pytest.mark.parametrize("previous", [0.1, 0.9])
def test_target_relative(gram, values, previous):
    for rate in np.trace(gram) * np.array([0.02, 0.2, 0.5]):
        loss = (1 - GRID) * values[0] + GRID * values[1]
        expected = nearest_to(decrease(gram) - rate * loss, previous)
        got = lambda_of(
            gram, "target_relative", target=rate, previous=previous, values=values
        )
        f = decrease(gram, np.array([got, expected])) - rate * (
            values[0] + np.array([got, expected]) * (values[1] - values[0])
        )
        met = np.any(np.diff(np.sign(decrease(gram) - rate * loss)))
        if met:
            assert abs(got - expected) < 3e-5
        else:
            assert abs(f[0]) <= abs(f[1]) + 1e-9


def test_norm_balance_is_the_bisector(gram):
    got = lambda_of(gram, "norm_balance")
    task, distill = np.sqrt(np.diagonal(gram))
    np.testing.assert_allclose(got * distill, (1 - got) * task, rtol=1e-10)


@pytest.mark.parametrize("start", [0.05, 0.5, 0.95])
def test_safe_is_the_nearest_that_harms_nobody(gram, start):
    falls = gram @ np.stack([1 - GRID, GRID])
    harmless = GRID[np.all(falls >= 0, axis=0)]
    nearest = harmless[np.argmin(np.abs(harmless - start))]
    got = lambda_of(gram, "safe", lambda_=start)
    assert abs(got - nearest) < 2e-5
    if gram[0, 1] >= 0:
        assert got == start


def test_cosine_goes_to_the_bisector_as_conflict_grows():
    for start in (0.1, 0.9):
        assert abs(lambda_of(np.eye(2) * 4, "cosine", lambda_=start) - start) < 1e-6
        opposite = np.array([[4.0, -2.0], [-2.0, 1.0]])
        got = lambda_of(opposite, "cosine", lambda_=start)
        assert abs(got - 2 / 3) < 1e-6
    half = np.array([[1.0, -0.5], [-0.5, 1.0]])
    got = lambda_of(half, "cosine", lambda_=0.6)
    np.testing.assert_allclose(got, 0.6 + 0.5 * (0.5 - 0.6), rtol=1e-6)


# The edges

EDGES = {
    "equal": [[2.0, 2.0], [2.0, 2.0]],
    "parallel": [[1.0, 2.0], [2.0, 4.0]],
    "opposite": [[1.0, -2.0], [-2.0, 4.0]],
    "no task": [[0.0, 0.0], [0.0, 4.0]],
    "no distill": [[4.0, 0.0], [0.0, 0.0]],
    "nothing": [[0.0, 0.0], [0.0, 0.0]],
}


@pytest.mark.parametrize(
    ("edge", "scale"), list(itertools.product(EDGES, [1e-36, 1.0, 1e35]))
)
def test_edges_are_finite(edge, scale):
    gram, values = scale * np.array(EDGES[edge]), np.array([0.0, 1.0])
    for policy in POLICIES:
        got = solve(gram, values, policy=policy, lambda_=0.7, target=scale)
        got = np.asarray(got)
        assert np.all((got >= 0) & (got <= 1)), policy


EXPECTED = {
    # the parabola is flat: stay; ties stay; the bisector of equal lengths
    ("equal", "gradual"): 0.7,
    ("equal", "fast"): 0.7,
    ("equal", "norm_balance"): 0.5,
    ("equal", "safe"): 0.7,
    ("equal", "cosine"): 0.7,
    # the shorter of parallel gradients; the longer falls fastest
    ("parallel", "gradual"): 0.0,
    ("parallel", "fast"): 1.0,
    ("parallel", "norm_balance"): 1 / 3,
    ("parallel", "safe"): 0.7,
    # one point alone harms nobody: there the gradients cancel
    ("opposite", "gradual"): 1 / 3,
    ("opposite", "safe"): 1 / 3,
    ("opposite", "norm_balance"): 1 / 3,
    ("opposite", "cosine"): 1 / 3,
    # a gradient that is zero does not stop the other
    ("no task", "gradual"): 1.0,
    ("no task", "fast"): 1.0,
    ("no task", "norm_balance"): 1.0,
    ("no task", "safe"): 0.7,
    ("no distill", "gradual"): 0.0,
    ("no distill", "fast"): 0.0,
    ("no distill", "norm_balance"): 0.0,
    ("nothing", "gradual"): 0.7,
    ("nothing", "fast"): 0.7,
    ("nothing", "norm_balance"): 0.7,
    ("nothing", "safe"): 0.7,
}


@pytest.mark.parametrize(("edge", "policy"), EXPECTED)
def test_edges(edge, policy):
    got = lambda_of(np.array(EDGES[edge], np.float32), policy, lambda_=0.7)
    np.testing.assert_allclose(got, EXPECTED[edge, policy], atol=1e-6)


# The transform


def test_ema_over_steps():
    tx = kdopt.dynamic_lambda(policy="norm_balance", lambda_=0.9, ema=0.75)
    grads = (np.array([1.0, 0.0]), np.array([0.0, 3.0]))
    step, state, expected = jax.jit(tx.update), tx.init(jnp.zeros(2)), 0.9
    for _ in range(3):
        update, state = jax.device_get(step(grads, state))
        expected = 0.75 * expected + 0.25 * 0.25
        np.testing.assert_allclose(state.loss_weights[1], expected, rtol=1e-6)
        np.testing.assert_allclose(update, [1 - expected, 3 * expected], rtol=1e-6)


def test_the_nearest_root_is_nearest_to_the_last_lambda():
    """D = 100 x^2 - 80 x + 18 is 6 at 0.2 and 0.6."""
    grads = (np.array([-4.0, 1.0, 1.0]), np.array([6.0, 1.0, 1.0]))

    @jax.jit
    def two_steps(grads, start):
        tx = kdopt.dynamic_lambda(policy="target", target=6.0, lambda_=start)
        _, first = tx.update(grads, tx.init(grads[0]))
        _, second = tx.update(grads, first)
        return first.loss_weights, second.loss_weights

    for start, root in ((0.1, 0.2), (0.39, 0.2), (0.41, 0.6), (1.0, 0.6)):
        for weights in jax.device_get(two_steps(grads, start)):
            np.testing.assert_allclose(weights[1], root, rtol=1e-5)


@pytest.mark.parametrize("policy", ["target", "target_relative"])
def test_target_policies_need_a_target(policy):
    with pytest.raises(ValueError, match=r"needs a positive target, got 0\.0"):
        kdopt.dynamic_lambda(policy=policy)


def test_target_relative_needs_values():
    with pytest.raises(ValueError, match="needs the loss values"):
        kdopt.dynamic_lambda_weights(jnp.eye(2), policy="target_relative")
