"""equal_norms: golden values of EnCodec, MetaBalance's rule, ratios of lengths."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt

# facebookresearch/encodec 0e2d0ae, balancer.py: weights 1 and 3, ema_decay 0.9.
ENCODEC = [
    [-0.09999999999994666, 0.4999999999998333, 0.6999999999997932],
    [0.026908866995124903, 0.33928571428556076, 0.6013546798027678],
    [0.07564327747080424, 0.28347280334711955, 0.5733123755396049],
]


def test_golden_values(x64):
    tx = kdopt.equal_norms(preference=[1.0, 3.0], decay=0.9)
    state, step = jax.jit(tx.init)(np.zeros(3)), jax.jit(tx.update)
    for t, expected in enumerate(ENCODEC):
        grads = np.array([3.0, 0, 4]) * (t + 1), np.array([-1.0, 2, 2]) / (t + 1)
        update, state = step(grads, state)
        np.testing.assert_allclose(update, expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("target", "total"), [(2.0, 2.0), ("mean", 7.0), ("sum", 14.0), ("task", 10.0)]
)
def test_lengths_are_in_the_ratios(target, total):
    norms = np.array([5.0, 2.0])
    solve = functools.partial(
        kdopt.equal_norms_weights, preference=[1.0, 3.0], target=target
    )
    weights = np.asarray(jax.jit(solve)(norms))
    np.testing.assert_allclose(weights * norms, np.array([0.25, 0.75]) * total, 1e-6)


def test_metabalance(x64):
    """All as long as the mean of the task's norm, mixed with the raw gradients."""
    tx = kdopt.equal_norms(num_losses=3, target="task", decay=0.9, mix=0.7)
    rng = np.random.default_rng(0)
    state, step = jax.jit(tx.init)(np.zeros(4)), jax.jit(tx.update)
    means = np.zeros(3)
    for _ in range(5):
        rows = rng.normal(size=(3, 4))
        means = 0.9 * means + 0.1 * np.linalg.norm(rows, axis=1)
        update, state = step(tuple(rows), state)
        weights = 0.7 * means[0] / means + 0.3
        np.testing.assert_allclose(update, weights @ rows, rtol=1e-10)


def test_an_absent_loss_keeps_its_mean():
    tx = kdopt.equal_norms(decay=0.5)
    grads = np.array([2.0]), np.array([4.0])
    step = jax.jit(lambda g, s, here: tx.update(g, s, present=here))
    _, state = step(grads, tx.init(jnp.zeros(1)), np.array([True, True]))
    _, after = jax.device_get(step(grads, state, np.array([True, False])))
    assert after.inner.norms.value[1] == 4 and after.loss_weights[1] == 0


def test_what_is_refused():
    with pytest.raises(ValueError, match="target must be one of task"):
        inspect.unwrap(kdopt.equal_norms)(target="longest")
    with pytest.raises(ValueError, match="target must lie in"):
        kdopt.equal_norms(target=0.0)
