"""Resolutions and channels of paired feature maps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt.losses._stages import adaptive_avg_pool, paired_stages


@pytest.mark.parametrize(
    ("size", "to"),
    [((8, 8), (4, 2)), ((7, 5), (3, 4)), ((6, 3), (1, 1)), ((5, 5), (5, 5))],
)
def test_pooling_against_its_definition(size, to):
    x = np.random.default_rng(0).normal(size=(2, *size, 3))
    expected = np.zeros((2, *to, 3))
    for i in range(to[0]):
        rows = slice(i * size[0] // to[0], math.ceil((i + 1) * size[0] / to[0]))
        for j in range(to[1]):
            columns = slice(j * size[1] // to[1], math.ceil((j + 1) * size[1] / to[1]))
            expected[:, i, j] = x[:, rows, columns].mean((1, 2))
    pool = jax.jit(adaptive_avg_pool, static_argnums=1)
    pooled = pool(x.astype(np.float32), to)
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)


def test_the_larger_map_is_pooled_along_each_axis():
    [(student, teacher)], _ = paired_stages(
        [jnp.ones((1, 8, 2, 3))], [jnp.ones((1, 5, 4, 7), jnp.bfloat16)]
    )
    assert student.shape == (1, 5, 2, 3)
    assert teacher.shape == (1, 5, 2, 7)
    assert teacher.dtype == jnp.float32


def test_the_teacher_is_fixed():
    def total(teacher):
        return paired_stages([teacher], [teacher])[0][0][1].sum()

    assert not np.any(jax.jit(jax.grad(total))(jnp.ones((1, 2, 2, 1))))


def test_mistakes_are_named():
    x, wide = jnp.ones((1, 2, 2, 3)), jnp.ones((1, 2, 2, 4))
    with pytest.raises(ValueError, match="the same number of stages"):
        paired_stages([x], [x, x])
    with pytest.raises(ValueError, match="the same number of stages"):
        paired_stages([], [])
    with pytest.raises(
        ValueError, match="stage 1 must have the same number of channels"
    ):
        paired_stages([x, x], [x, wide], same_channels=True)
