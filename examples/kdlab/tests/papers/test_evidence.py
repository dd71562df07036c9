"""Verdicts follow from intervals, and the control is the library's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from kdlab.papers.claims import make_row, to_markdown
from kdlab.papers.claims.evidence import (
    CONFIRMED,
    OPEN,
    REFUTED,
    Claim,
    Finding,
    confidence_interval,
    judge,
    judge_ratio,
)
from kdlab.papers.claims.kim import RATES, compute_errors
from kdlab.papers.claims.trials import DELTAS
from kdlab.train.methods import Numbers, momenta

pytestmark = pytest.mark.usefixtures("standard")


def test_interval_covers_the_mean_in_95_of_100_draws():
    draws = np.random.default_rng(0).normal(3, 2, (2000, 5))
    covered = [abs(mean - 3) <= half for mean, half in map(confidence_interval, draws)]
    assert abs(np.mean(covered) - 0.95) < 0.02


def test_diverged_seeds_are_left_out():
    assert confidence_interval(np.array([1.0, np.nan, 2.0])) == confidence_interval(
        np.array([1.0, 2.0])
    )
    assert judge("x", np.array([1.0, np.nan])).verdict == OPEN


@pytest.mark.parametrize(
    ("values", "verdict"),
    [([1.0, 1.1, 0.9], CONFIRMED), ([-1.0, -1.1], REFUTED), ([1.0, -1.0], OPEN)],
)
def test_verdict_of_a_difference(values, verdict):
    assert judge("x", np.array(values)).verdict == verdict
    assert (
        judge_ratio("x", np.exp(-np.array(values)), np.ones(len(values))).verdict
        == verdict
    )


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((CONFIRMED, CONFIRMED), CONFIRMED),
        ((CONFIRMED, OPEN), OPEN),
        ((OPEN, CONFIRMED, REFUTED), REFUTED),
    ],
)
def test_claim_needs_all_its_findings(verdicts, expected):
    claim = Claim("p", "s", "t", [Finding("f", v) for v in verdicts], ["b"])
    assert claim.verdict == expected
    assert f"| **{expected}** |" in to_markdown([claim], 5)
    assert make_row(claim)[3].endswith(". Also measured: b")


def updates(plan, grads, steps=4, begin=None):
    """Takes steps of a plan's transform, from its own state or another plan's."""
    params = jnp.zeros(3)
    state, out = (begin or plan).tx.init(params), []
    step = jax.jit(plan.tx.update)
    for i in range(steps):
        scaled = jax.tree.map(lambda g, i=i: g * (i + 1.0), grads)
        update, state = step(scaled, state, params)
        out.append(update)
    return jnp.stack(out)


GRADS = jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0])
PLAIN = Numbers(weights=(0.1, 0.9), delta=0.0)


def one(delta=0.0, matched=0.0):
    return momenta(PLAIN._replace(delta=delta, matched=matched), lambda _: 1.0)


def of(balancer):
    weighted = kdopt.each(optax.scale(0.1), optax.scale(0.9))
    tx = optax.chain(weighted, balancer, optax.scale_by_learning_rate(1.0))
    return updates(type(one())(tx), GRADS)


def test_arms_are_the_trainers_they_are_named_for():
    delta = DELTAS[-1]
    np.testing.assert_allclose(
        updates(one(delta=delta), GRADS), of(kdopt.dot(0.9, delta)), rtol=1e-5
    )
    np.testing.assert_allclose(
        updates(one(matched=delta), GRADS),
        of(kdopt.gain_matched_sgd(0.9, delta)),
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    "arm", [{"delta": 0.075}, {"matched": 0.05}, {"weights": (0.5, 0.5)}]
)
def test_arms_of_momentum_share_one_compiled_step(arm):
    """Their hyper-parameters are in the state: one plan steps with another's state."""
    other = momenta(PLAIN._replace(**arm), lambda _: 1.0)
    np.testing.assert_allclose(
        updates(one(), GRADS, begin=other), updates(other, GRADS), rtol=1e-6
    )
    assert not np.allclose(updates(one(), GRADS), updates(other, GRADS))


def test_decrease_is_predicted_to_first_order(x64):
    """For quadratics the error is proportional to the rate."""
    targets = jnp.array([[1.0, 0.0, 2.0], [-1.0, 3.0, 0.5]])

    def both(params, batch):
        return jnp.sum((params - batch) ** 2, axis=1)

    data = [(0.25, targets), (0.75, targets)]
    errors = compute_errors(both, jnp.zeros(3), data)
    assert len(errors) == len(RATES)
    np.testing.assert_allclose(errors[0] / errors[1], RATES[0] / RATES[1], rtol=1e-3)
    assert errors[-1] < 1e-3
