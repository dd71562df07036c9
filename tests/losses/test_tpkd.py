"""TPKD: the direction by bisection, and the margins it promises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq
from scipy.special import softmax

from kdopt import losses
from tests.losses._inputs import LABELS, logits

Y = jnp.asarray(LABELS)


@jax.jit
def slopes(s, t):
    """Of the task and of the whole."""
    whole = jax.grad(losses.tpkd)(s, t, Y)
    return jax.grad(losses.cross_entropy)(s, Y), whole


def extra(s, t, y):
    """The teacher's part of the direction for one example, from its definition."""
    others = np.delete(np.arange(len(s)), y)
    r, q = softmax(s[others]), softmax(t[others])
    level = brentq(lambda x: np.maximum(q - r - x, 0).sum() - x, 0, 1, xtol=1e-14)
    d = np.empty(len(s))
    d[y], d[others] = -level, r - np.minimum(q, r + level)
    return d


def test_gradient_against_bisection(x64):
    s, t = logits()
    task, _ = slopes(s, t)
    loss = functools.partial(losses.tpkd, distill_weight=0.7)
    slope = jax.jit(jax.grad(loss))(s, t, Y)
    d = [extra(*row) for row in zip(np.asarray(s), np.asarray(t), LABELS, strict=True)]
    np.testing.assert_allclose(slope, task + 0.7 * np.stack(d) / 4, atol=1e-12)


def test_no_margin_is_lost_and_the_sum_stays(x64):
    task, whole = map(np.asarray, slopes(*logits()))
    step = task - whole
    margins = step[np.arange(4), LABELS][:, None] - step
    assert margins.min() > -1e-12
    assert margins.max() > 1e-2
    np.testing.assert_allclose(np.sum(step, axis=1), 0, atol=1e-12)


def test_value_is_the_task_loss_and_agreement_adds_nothing(x64):
    s, t = logits()
    value = jax.jit(losses.tpkd)(s, t, Y)
    np.testing.assert_allclose(value, jax.jit(losses.cross_entropy)(s, Y))
    task, whole = slopes(s, np.asarray(s) + 1)
    np.testing.assert_allclose(whole, task, atol=1e-12)
