"""SP: by NumPy, and its invariance."""

import jax
import numpy as np
from scipy.stats import ortho_group

from kdopt import losses
from tests.losses._inputs import vectors


def test_by_numpy(x64):
    s, t = map(np.asarray, vectors())
    rows = [x @ x.T for x in (s, t)]
    rows = [g / np.linalg.norm(g, axis=1, keepdims=True) for g in rows]
    expected = np.sum((rows[0] - rows[1]) ** 2) / 16
    np.testing.assert_allclose(jax.jit(losses.sp)(s, t), expected, rtol=1e-10)


def test_rotation_and_scale_are_not_seen(x64):
    s = np.asarray(vectors()[0])
    moved = 5 * s @ ortho_group.rvs(6, random_state=0)
    np.testing.assert_allclose(jax.jit(losses.sp)(s, moved), 0, atol=1e-20)
