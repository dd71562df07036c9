"""KD-SVD: against NumPy's decomposition, and its derivative against differences."""

import jax
import numpy as np
import pytest

from kdopt import losses
from tests.losses._inputs import wave_map


def stages(seed):
    rng = np.random.default_rng(seed)
    shapes = [(2, 6, 7, 3), (2, 6, 7, 4), (2, 5, 5, 4)]
    return [rng.normal(size=shape) for shape in shapes]


def by_svd(student, teacher, k):
    """The loss from NumPy's singular vectors, example by example."""
    total = 0.0
    for b in range(2):
        previous = None
        for s, t in zip(student, teacher, strict=True):
            vectors = []
            for x, n in ((s, k + 3), (t, k)):
                x = np.moveaxis(x[b], -1, 0).reshape(-1, x.shape[2])
                _, values, rows = np.linalg.svd(x)
                vectors.append(rows[:n].T)
            ours, theirs = vectors
            theirs = theirs * np.where(theirs.sum(0) < 0, -1, 1)
            cosines = ours.T @ theirs
            best = np.argmax(np.abs(cosines), axis=0)
            ours = ours[:, best] * np.sign(cosines[best, np.arange(k)])
            share = values[:k] / np.linalg.norm(values[:k])
            current = ours * share, theirs * share
            if previous is not None:
                kernels = [
                    np.exp(-((x[:, None] - y[None]) ** 2) / 8)
                    for x, y in zip(current, previous, strict=True)
                ]
                total += np.sum((kernels[0] - kernels[1]) ** 2)
            previous = current
    return total / 2


@pytest.mark.parametrize("num_vectors", [1, 2])
def test_against_svd(x64, num_vectors):
    s, t = stages(0), stages(1)
    value = jax.jit(losses.kdsvd, static_argnames="num_vectors")(
        s, t, num_vectors=num_vectors
    )
    np.testing.assert_allclose(value, by_svd(s, t, num_vectors), rtol=1e-8)


def test_gradient_against_differences(x64):
    s, t = stages(0), stages(1)
    direction = wave_map((2, 4, 6, 7), 0.9, 0.1, 1)

    @jax.jit
    def along(h):
        return losses.kdsvd([s[0], s[1] + h * direction, s[2]], t)

    slope = jax.jit(jax.grad(along))(0.0)
    h = 1e-5
    np.testing.assert_allclose(slope, (along(h) - along(-h)) / (2 * h), rtol=1e-6)


def test_equal_networks_cost_nothing(x64):
    s = stages(0)
    value = jax.jit(losses.kdsvd)(s, [2 * x for x in s])
    np.testing.assert_allclose(value, 0, atol=1e-20)


def test_mistakes_are_named():
    x = np.ones((1, 2, 2, 1))
    with pytest.raises(ValueError, match="at least two"):
        losses.kdsvd([x], [x])
    with pytest.raises(ValueError, match="narrowest map, 2, got 3"):
        losses.kdsvd([x, x], [x, x], num_vectors=3)


def test_one_decomposition_for_all_maps():
    """Two that run at once can wait for each other's threads for ever, on a CPU."""
    maps = [np.ones((2, 4, w, 3)) for w in (4, 7, 5)]
    program = jax.make_jaxpr(jax.value_and_grad(losses.kdsvd))(maps, maps)
    assert str(program).count(" eigh[") == 1
