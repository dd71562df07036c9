"""Multi-level distillation: its levels one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import losses
from tests.losses._inputs import logits


def test_temperatures_add_up(x64):
    s, t = logits()
    expected = losses.kd(s, t, temperature=1.0) + losses.kd(s, t, temperature=4.0)
    np.testing.assert_allclose(
        losses.kd_multi(s, t, temperatures=(1.0, 4.0)), expected, rtol=1e-12
    )


def test_correlations_by_loops(x64):
    s, t = logits()
    p, q = np.asarray(jax.nn.softmax(s / 4)), np.asarray(jax.nn.softmax(t / 4))
    batch = sum((p[i] @ p[j] - q[i] @ q[j]) ** 2 for i in range(4) for j in range(4))
    classes = sum(
        (p[:, c] @ p[:, d] - q[:, c] @ q[:, d]) ** 2
        for c in range(10)
        for d in range(10)
    )
    np.testing.assert_allclose(losses.batch_correlation(s, t), batch / 4, rtol=1e-10)
    np.testing.assert_allclose(losses.class_correlation(s, t), classes / 10, rtol=1e-10)


def test_relations_are_of_the_first_view(x64):
    s, t = logits()
    one, two = losses.mlkd([s], [t]), losses.mlkd([s, s / 2], [t, t / 2])
    np.testing.assert_allclose(two - one, losses.kd_multi(s / 2, t / 2), rtol=1e-10)
    relations = sum(
        f(s, t, temperature=float(tau))
        for f in (losses.batch_correlation, losses.class_correlation)
        for tau in (2, 3, 4, 5, 6)
    )
    np.testing.assert_allclose(one, losses.kd_multi(s, t) + relations, rtol=1e-10)


def test_views_must_pair():
    x = jnp.ones((1, 2))
    with pytest.raises(ValueError, match="got 1 and 2"):
        losses.mlkd([x], [x, x])
