"""Running means: unbiased from the first value, entry by entry."""

import jax
import numpy as np

from kdopt._running import move_mean, start_mean


def test_is_the_weighted_mean_of_what_counted():
    xs = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    counts = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]], bool)
    mean, move = start_mean(3), jax.jit(move_mean)
    for x, here in zip(xs[:5], counts, strict=True):
        mean = move(mean, x, 0.7, here)
    for i in range(2):
        seen = xs[:5, i][counts[:, i]]
        shares = 0.7 ** np.arange(len(seen))[::-1]
        np.testing.assert_allclose(
            mean.value[i], shares @ seen / shares.sum(), rtol=1e-5
        )
    assert mean.value[2] == 0  # no value yet


def test_without_memory_it_is_the_last_value():
    mean, move = start_mean(2), jax.jit(move_mean)
    for x in np.float32([[1, 2], [5, -3]]):
        mean = move(mean, x, 0.0, np.ones(2, bool))
    np.testing.assert_array_equal(mean.value, [5, -3])
