"""DeepKD: the parts make the whole; the mask leaves classes out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from kdopt import losses
from tests.losses._inputs import LABELS, logits

Y = jnp.asarray(LABELS)


def test_parts_sum_to_kd(x64):
    @jax.jit
    def values(s, t):
        kd = losses.kd(s, t, temperature=2.0)
        return losses.deepkd(s, t, Y, temperature=2.0), losses.cross_entropy(s, Y), kd

    (task, target, other), cross_entropy, kd = values(*logits())
    np.testing.assert_allclose(target + other, kd, rtol=1e-12)
    np.testing.assert_allclose(task, cross_entropy, rtol=1e-12)


def test_decoupled_parts_are_those_of_dkd(x64):
    @jax.jit
    def values(s, t):
        return losses.deepkd(s, t, Y, decoupled=True), losses.dkd(s, t, Y)

    (_, target, other), dkd = values(*logits())
    np.testing.assert_allclose(target + 8 * other, dkd, rtol=1e-12)


def test_mask_against_the_classes_taken_out(x64):
    s, t = logits()
    expected = []
    for a, b, y in zip(np.asarray(s), np.asarray(t), LABELS, strict=True):
        others = np.delete(np.arange(10), y)
        kept = others[np.argsort(-b[others])[:3]]
        expected.append(16 * rel_entr(softmax(b[kept] / 4), softmax(a[kept] / 4)).sum())
    masked = functools.partial(losses.deepkd, top_k=3, decoupled=True)
    part = jax.jit(masked)(s, t, Y)[2]
    np.testing.assert_allclose(part, np.mean(expected), rtol=1e-10)


def test_mask_may_be_traced_and_open():
    s, t = logits(np.float32)
    masked = jax.jit(lambda k: losses.deepkd(s, t, Y, top_k=k)[2])
    open_to_all = jax.jit(losses.deepkd)(s, t, Y)[2]
    np.testing.assert_allclose(masked(jnp.array(10)), open_to_all, rtol=1e-6)
    # One class among itself is certain for both.
    assert masked(jnp.array(1)) == 0


def test_schedule():
    k = [
        int(losses.deepkd_top_k(u, num_classes=200))
        for u in (0.0, 1 / 6, 1 / 3, 0.5, 2 / 3, 5 / 6, 1.0)
    ]
    assert k == [10, 55, 100, 100, 100, 150, 200]
    linear = [
        int(losses.deepkd_top_k(u, num_classes=200, plateau=0.525, phases=(0.5, 0.5)))
        for u in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert linear == [10, 58, 105, 152, 200]
    assert losses.deepkd_top_k(0.0, num_classes=4) == 1


@pytest.mark.parametrize(
    "options", [{"start": 0.0}, {"start": 0.6}, {"phases": (0.7, 0.3)}]
)
def test_schedule_must_grow(options):
    with pytest.raises(ValueError, match="0"):
        losses.deepkd_top_k(0.0, num_classes=10, **options)
