"""Logit standardisation: the moments, and what it forgets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import losses
from tests.losses._inputs import logits


@pytest.mark.parametrize("ddof", [0, 1])
def test_moments(x64, ddof):
    standardize = jax.jit(losses.standardize_logits, static_argnames="ddof")
    z = np.asarray(standardize(logits()[0], ddof=ddof))
    np.testing.assert_allclose(np.mean(z, axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(np.std(z, axis=1, ddof=ddof), 1, rtol=1e-6)


def test_scale_and_shift_are_forgotten(x64):
    (s, t), loss = map(np.asarray, logits()), jax.jit(losses.kd_standardized)
    # Exactly so without eps; its share is 1e-7 of the deviation.
    np.testing.assert_allclose(loss(s, t), loss(3 * s - 1, t / 2 + 5), rtol=1e-6)


def test_is_kd_of_the_standardised(x64):
    s, t = map(np.asarray, logits())
    z = [
        (x - np.mean(x, 1, keepdims=True)) / np.std(x, 1, keepdims=True, ddof=1)
        for x in (s, t)
    ]
    value = jax.jit(losses.kd_standardized)(s, t, temperature=3.0)
    expected = jax.jit(losses.kd)(*z, temperature=3.0)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_too_few_classes():
    with pytest.raises(ValueError, match="more than ddof = 1 classes, got 1"):
        losses.standardize_logits(jnp.ones((2, 1)))
