"""Divergences from mixtures: limits, bounds, and digits near agreement."""

import decimal
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import losses
from kdopt.losses._mixtures import _log1p_remainder
from tests.losses._inputs import token_logits


def test_small_beta_is_a_small_loss(x64):
    @jax.jit
    def values(s, t):
        ends = [losses.jensen_shannon(s, t, beta=x) for x in (1e-4, 1 - 1e-4)]
        return ends, losses.kd(s, t, temperature=1.0), losses.reverse_kl(s, t)

    (small, large), kd, reverse_kl = values(*token_logits())
    np.testing.assert_allclose(small / 1e-4, kd, rtol=2e-3)
    np.testing.assert_allclose(large / 1e-4, reverse_kl, rtol=1e-2)


def test_exchange_of_the_networks(x64):
    @jax.jit
    def values(s, t):
        jsd, skew = losses.jensen_shannon, losses.skew_kl
        found = []
        for beta in (0.1, 0.5):
            found += [(jsd(s, t, beta=beta), jsd(t, s, beta=1 - beta))]
            reverse = skew(t, s, alpha=beta, reverse=True)
            found += [(skew(s, t, alpha=beta), reverse)]
        return found

    for value, exchanged in values(*token_logits()):
        np.testing.assert_allclose(value, exchanged, rtol=1e-12)


APART = np.float32([[1e4, 0], [0, 1e4]]), np.float32([[0, 1e4], [1e4, 0]])
EXCLUDED = jnp.array([[0.0, -jnp.inf]]), jnp.array([[-jnp.inf, 0.0]])


@pytest.mark.parametrize("pair", [APART, EXCLUDED])
def test_bounds_of_certain_networks(pair):
    for loss, bound in (
        (losses.jensen_shannon, np.log(2)),
        (losses.skew_kl, np.log(10)),
        (lambda s, t: losses.skew_kl(s, t, reverse=True), np.log(10)),
    ):
        value, slope = jax.jit(jax.value_and_grad(loss))(*pair)
        np.testing.assert_allclose(value, bound, rtol=1e-6)
        assert np.isfinite(slope).all()


@jax.jit
def of_every_loss(s, t):
    every = (
        losses.jensen_shannon,
        losses.skew_kl,
        functools.partial(losses.skew_kl, reverse=True),
        losses.total_variation,
    )
    return [jax.value_and_grad(loss)(s, t) for loss in every]


@pytest.mark.parametrize("excluded", ["student", "teacher"])
def test_a_class_that_one_network_excludes(excluded, x64):
    """As a class of hardly any probability would do."""
    s, t = token_logits()
    third = np.arange(11) == 2
    low, none = (
        (np.where(third, x, s), t)
        if excluded == "student"
        else (s, np.where(third, x, t))
        for x in (-60.0, -np.inf)
    )
    for (value, slope), (expected, slopes) in zip(
        of_every_loss(*none), of_every_loss(*low), strict=True
    ):
        np.testing.assert_allclose(value, expected, rtol=1e-10)
        np.testing.assert_allclose(slope, slopes, atol=1e-10)


def test_remainder_of_the_logarithm(x64):
    for dtype, rtol in ((np.float32, 5e-7), (np.float64, 2e-15)):
        x = np.concatenate([np.logspace(-9, np.log10(0.64), 40)] * 2).astype(dtype)
        x[:40] *= -0.6
        with decimal.localcontext(decimal.Context(prec=50)):
            wide = [decimal.Decimal(float(v)) for v in x]
            expected = [float(v - (1 + v).ln()) for v in wide]
        np.testing.assert_allclose(jax.jit(_log1p_remainder)(x), expected, rtol=rtol)


@pytest.mark.parametrize("wrong", [-0.1, 1.5, "half", jnp.ones(2)])
def test_wrong_shares_are_named(wrong):
    x = jnp.ones((1, 2))
    with pytest.raises(Exception, match="beta"):
        losses.jensen_shannon(x, x, beta=wrong)
    with pytest.raises(Exception, match="alpha"):
        losses.skew_kl(x, x, alpha=wrong)
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\)"):
        losses.skew_kl(x, x, alpha=1.0)
