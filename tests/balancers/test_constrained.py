"""Constrained steps: golden values, optimality, infeasible and conflicting bounds."""

import inspect

import jax
import numpy as np
import pytest

import kdopt
from tests.balancers._inputs import GOLDEN, batched, first_step, grams, jacobians

# Solved by quadprog.
SOLVED = [
    ([[-4, 1, 1], [6, 1, 1]], [0.0], [1, 0.5789473684210527]),
    ([[-4, 1, 1], [6, 1, 1]], [5.0], [1, 0.7105263157894737]),
    ([[-4, 1, 1], [6, 1, 1]], [-10.0], [1, 0.3157894736842104]),
    (
        [[1, 2, 0, 1], [-1, 0, 1, 0], [0, -2, 1, 1]],
        [0.0, 0.0],
        [1, 0.2727272727272726, 0.45454545454545453],
    ),
    (
        [[1, 2, 0, 1], [-1, 0, 1, 0], [0, -2, 1, 1]],
        [0.5, 1.0],
        [1, 0.4545454545454544, 0.5909090909090908],
    ),
]
INFEASIBLE = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])


@pytest.mark.parametrize(("matrix", "bounds", "weights"), SOLVED)
def test_golden_values(x64, matrix, bounds, weights):
    rows = np.array(matrix, float)
    got = jax.jit(kdopt.constrained_weights)(rows @ rows.T, np.array(bounds))
    np.testing.assert_allclose(got, weights, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_optimal(x64, k, dtype):
    """The conditions of Karush, Kuhn and Tucker, which suffice as it is convex."""
    matrices = jacobians(k, 8, count=200)
    bounds = np.random.default_rng(k).normal(size=(200, k - 1))
    own = np.einsum("cij,cij->ci", matrices, matrices)[:, 1:]
    bounds *= 0.2 * own
    fn = jax.jit(jax.vmap(kdopt.constrained_weights))
    weights = fn(grams(matrices).astype(dtype), bounds.astype(dtype))
    weights = np.asarray(weights, float)
    steps = np.einsum("ck,ckn->cn", weights, matrices)
    others, mu = matrices[:, 1:], weights[:, 1:]
    terms = np.einsum("ck,cjk->cj", np.abs(weights), np.abs(grams(matrices))[:, 1:])
    slack = np.einsum("ckn,cn->ck", others, steps) - bounds
    tolerance = 1e-9 if dtype == "float64" else 2e-4
    assert np.all(weights[:, 0] == 1) and np.all(mu >= 0)
    assert np.all(slack >= -tolerance * terms)
    assert np.all(mu * slack <= tolerance * (mu + (mu > 0)) * terms)
    assert np.mean(mu > 0) > 0.2  # some bounds were active


def test_without_positive_bounds_no_loss_rises(x64):
    matrices = jacobians(4, 3, count=500)  # three dimensions: conflicts are frequent
    weights = batched(kdopt.constrained_weights, grams(matrices))
    steps = np.einsum("ck,ckn->cn", weights, matrices)
    falls = np.einsum("ckn,cn->ck", matrices, steps)
    scale = np.einsum("ck,cik->ci", weights, np.abs(grams(matrices)))
    assert np.all(falls >= -1e-9 * scale)
    square = np.sum(steps**2, axis=1)
    np.testing.assert_allclose(falls[:, 0], square, atol=1e-9 * scale.max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_infeasible_bounds_leave_the_task_alone(x64, dtype):
    grads = tuple(INFEASIBLE.astype(dtype))
    tx = kdopt.constrained(num_losses=3, bounds=0.1)
    state = jax.jit(tx.init)(np.zeros(3, dtype))
    step = jax.jit(tx.update)
    for n in (1, 2):
        update, state = jax.device_get(step(grads, state))
        np.testing.assert_array_equal(update, INFEASIBLE[0])
        assert state.inner.infeasible == n and state.inner.task_rises == 0
    _, state = step((grads[0], grads[1], grads[1]), state)
    assert int(state.inner.infeasible) == 2


@pytest.mark.parametrize(
    ("on_conflict", "weights"),
    [("allow", (1, 3)), ("relax", (1, 1.5)), ("drop", (1, 0))],
)
def test_conflict_with_the_task(x64, on_conflict, weights):
    """Gradients (3,) and (-2,): a bound of 6 takes a step of -3."""
    tx = kdopt.constrained(bounds=6.0, on_conflict=on_conflict)
    _, state = first_step(tx, (np.array([3.0]), np.array([-2.0])))
    np.testing.assert_allclose(state.loss_weights, weights, rtol=1e-12)
    assert state.inner.task_rises == 1 and state.inner.infeasible == 0


def test_bounds_by_a_function_of_the_values():
    tx = kdopt.constrained(bounds=lambda gram, values: 0.5 * values[1:])
    update, _ = first_step(tx, tuple(GOLDEN), values=(1.0, 10.0))
    np.testing.assert_allclose(GOLDEN[1] @ update, 5, rtol=1e-5)


def test_what_is_refused():
    with pytest.raises(ValueError, match="bounds must be one number, or one for each"):
        kdopt.constrained(bounds=[0.0, 1.0])
    with pytest.raises(ValueError, match="on_conflict must be one of allow"):
        # Unwrapped: the type checker of the tests would see it first.
        inspect.unwrap(kdopt.constrained)(on_conflict="stop")
    with pytest.raises(ValueError, match="at least 2"):
        kdopt.constrained(num_losses=1)
