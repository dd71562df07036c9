"""Multi-level distillation: its levels one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from kdopt import losses
from tests.losses._inputs import logits


def test_temperatures_add_up(x64):
    @jax.jit
    def both(s, t):
        expected = losses.kd(s, t, temperature=1.0) + losses.kd(s, t, temperature=4.0)
        return losses.kd_multi(s, t, temperatures=(1.0, 4.0)), expected

    value, expected = both(*logits())
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_correlations_by_loops(x64):
    s, t = logits()
    p, q = (softmax(np.asarray(x) / 4, axis=1) for x in (s, t))
    batch = sum((p[i] @ p[j] - q[i] @ q[j]) ** 2 for i in range(4) for j in range(4))
    classes = sum(
        (p[:, c] @ p[:, d] - q[:, c] @ q[:, d]) ** 2
        for c in range(10)
        for d in range(10)
    )
    value = jax.jit(losses.batch_correlation)(s, t)
    np.testing.assert_allclose(value, batch / 4, rtol=1e-10)
    value = jax.jit(losses.class_correlation)(s, t)
    np.testing.assert_allclose(value, classes / 10, rtol=1e-10)


def test_relations_are_of_the_first_view(x64):
    s, t = map(np.asarray, logits())
    loss, levels = jax.jit(losses.mlkd), jax.jit(losses.kd_multi)
    one, two = loss([s], [t]), loss([s, s / 2], [t, t / 2])
    second = np.subtract(two, one)
    np.testing.assert_allclose(second, levels(s / 2, t / 2), rtol=1e-10)
    relations = sum(
        float(jax.jit(f)(s, t, temperature=float(tau)))
        for f in (losses.batch_correlation, losses.class_correlation)
        for tau in (2, 3, 4, 5, 6)
    )
    np.testing.assert_allclose(one, float(levels(s, t)) + relations, rtol=1e-10)


def test_views_must_pair():
    x = jnp.ones((1, 2))
    with pytest.raises(ValueError, match="got 1 and 2"):
        losses.mlkd([x], [x, x])
