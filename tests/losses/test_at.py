"""Attention transfer: by loops, and what it does not see."""

import jax
import numpy as np
import pytest

from kdopt import losses
from tests.losses._inputs import maps


@pytest.mark.parametrize("power", [1, 2, 3])
def test_by_loops(x64, power):
    s, t = maps()
    total = 0.0
    for a, b in zip(np.asarray(s), np.asarray(t), strict=True):
        q = [np.mean(np.abs(x) ** power, axis=-1) for x in (a, b)]
        q = [x / np.sqrt(np.sum(x**2)) for x in q]
        total += np.mean((q[0] - q[1]) ** 2) / len(s)
    value = jax.jit(losses.at, static_argnames="power")([s], [t], power=power)
    np.testing.assert_allclose(value, total, rtol=1e-10)


def test_signs_scale_and_order_of_channels_are_not_seen(x64):
    s = np.asarray(maps()[0])
    value = jax.jit(losses.at)([s], [-3 * s[..., ::-1]])
    np.testing.assert_allclose(value, 0, atol=1e-20)


def test_stages_add_up(x64):
    (s, t), loss = maps(), jax.jit(losses.at)
    np.testing.assert_allclose(
        loss([s, t], [t, s]), 2 * float(loss([s], [t])), rtol=1e-10
    )
