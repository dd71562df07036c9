"""Several labels at once: golden values, limits, and what is left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from kdopt import losses
from tests.losses._inputs import logits

# By Python's decimals at 40 digits, on the waves of `_inputs`; labels are where the
# teacher's logit is positive, soft ones its sigmoid.
GOLDEN = {
    "hard": 0.9370383802142030,
    "soft": 0.9362903677737518,
    "kd_1": 0.5443156158415128,
    "kd_3": 0.7819149143228920,
}


def values(dtype):
    s, t = logits(dtype)
    return {
        "hard": losses.binary_cross_entropy(s, t > 0),
        "soft": losses.binary_cross_entropy(s, expit(t)),
        "kd_1": losses.binary_kd(s, t),
        "kd_3": losses.binary_kd(s, t, temperature=3.0),
    }


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, x64):
    np.testing.assert_allclose(values(np.float64)[name], GOLDEN[name], rtol=1e-12)
    np.testing.assert_allclose(values(np.float32)[name], GOLDEN[name], rtol=1e-6)


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_gradients(x64, tau):
    s, t = logits()
    p, q = jax.nn.sigmoid(s / tau), jax.nn.sigmoid(t / tau)
    slope = jax.jit(jax.grad(losses.binary_kd))(s, t, temperature=tau)
    np.testing.assert_allclose(slope, tau * (p - q) / s.size, atol=1e-14)
    slope = jax.jit(jax.grad(losses.binary_cross_entropy))(s, q)
    np.testing.assert_allclose(slope, (jax.nn.sigmoid(s) - q) / s.size, atol=1e-14)


def test_one_class_against_its_negation_is_kd():
    """Two logits z and -z of a softmax are one logit 2z of a sigmoid."""
    s, t = (x[:, :1] for x in logits(np.float32))
    both = [jnp.concatenate([x, -x], axis=1) for x in (s, t)]
    np.testing.assert_allclose(
        losses.binary_kd(2 * s, 2 * t), losses.kd(*both, temperature=1.0), rtol=1e-5
    )


def test_near_agreement_and_hot():
    rng = np.random.default_rng(0)
    t = (5 * rng.normal(size=(8, 100))).astype(np.float32)
    for gap in (1e-6, 1e-3, 1.0):
        s = (t + gap * rng.normal(size=t.shape)).astype(np.float32)
        for tau in (1.0, 4.0, 1e4):
            value = jax.jit(losses.binary_kd)(s, t, temperature=tau)
            q = 1 / (1 + np.exp(-t.astype(np.float64) / tau))
            d = (s.astype(np.float64) - t) / tau
            # The logarithm of the mean of e^d, less the mean of d.
            if gap < 1:
                expected = np.mean(
                    q * (1 - q) * d**2 / 2 + q * (1 - q) * (1 - 2 * q) * d**3 / 6
                )
            else:
                expected = np.mean(np.log(q * np.exp(d) + 1 - q) - q * d)
            np.testing.assert_allclose(value, tau**2 * expected, rtol=1e-4)


INFINITE = {
    "agreed": ([1e4, -1e4, np.inf, -np.inf], [9e3, -2e4, np.inf, -np.inf], 0.0),
    "the teacher is certain": ([0.0, 0.0], [np.inf, -np.inf], np.log(2)),
    "the student is, wrongly": ([1e4, -1e4], [-1e4, 1e4], 1e4),
    "the student is, without end": ([np.inf], [0.0], np.inf),
}


@pytest.mark.parametrize("name", INFINITE)
def test_large_and_infinite_logits(name):
    s, t, expected = INFINITE[name]
    s, t = jnp.array([s]), jnp.array([t])
    value, slope = jax.jit(jax.value_and_grad(losses.binary_kd))(s, t)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.isfinite(slope).all()
    if np.isfinite(expected):
        certain = jnp.isinf(t) | (jnp.abs(t) > 100)
        labels = jnp.where(certain, (t > 0).astype(t.dtype), 0.5)
        value, slope = jax.jit(jax.value_and_grad(losses.binary_cross_entropy))(
            s, labels
        )
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        assert np.isfinite(slope).all()


GARBAGE = (np.nan, np.inf, -np.inf, 3e38)


@pytest.mark.parametrize("name", ["binary_kd", "binary_cross_entropy"])
def test_labels_of_weight_0_are_left_out(name):
    """The mean is over the labels that are known, wherever they are."""
    loss, (s, t) = getattr(losses, name), logits(np.float32)
    t = jax.nn.sigmoid(t) if name == "binary_cross_entropy" else t
    known = np.random.default_rng(0).random(s.shape) < 0.6
    known[2] = False
    weights = jnp.asarray(known, jnp.float32)
    rows, columns = np.nonzero(known)
    pairs = s[rows, columns][:, None], t[rows, columns][:, None]
    expected, slopes = jax.jit(jax.value_and_grad(loss))(*pairs)
    fn = jax.jit(jax.value_and_grad(loss))
    for garbage in GARBAGE:
        spoilt = [jnp.where(known, x, garbage) for x in (s, t)]
        value, slope = fn(*spoilt, label_weights=weights)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        np.testing.assert_allclose(slope[rows, columns], slopes[:, 0], rtol=1e-5)
        np.testing.assert_array_equal(np.asarray(slope)[~known], 0)
    assert loss(s, t, label_weights=jnp.zeros(s.shape)) == 0


def test_both_weights_multiply():
    s, t = logits(np.float32)
    a, b = np.array([1.0, 0.0, 2.0, 0.5], np.float32), np.ones(s.shape, np.float32)
    b[:, ::3] = 3
    value = losses.binary_kd(s, t, label_weights=b, sample_weights=a)
    entries = [
        [
            losses.binary_kd(s[i : i + 1, c : c + 1], t[i : i + 1, c : c + 1])
            for c in range(10)
        ]
        for i in range(4)
    ]
    expected = np.average(np.array(entries), weights=a[:, None] * b)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("label", [-1, 2, 255, np.nan])
def test_a_label_that_is_none_is_left_out(label):
    s, t = logits(np.float32)
    y = np.array(t > 0, np.float32)
    known = np.ones(y.shape, bool)
    known[1, 3] = known[2] = False
    expected = losses.binary_cross_entropy(s, y, label_weights=known)
    spoilt = np.where(known, y, label)
    np.testing.assert_allclose(
        losses.binary_cross_entropy(s, spoilt), expected, rtol=1e-6
    )
    if not np.isnan(label):
        integers = spoilt.astype(np.int32)
        np.testing.assert_allclose(
            losses.binary_cross_entropy(s, integers), expected, rtol=1e-6
        )


def test_a_mixture_may_be_rounded():
    """The labels of a mixture may be a rounding above 1."""
    s, _ = logits(np.float32)
    y = jnp.full(s.shape, np.nextafter(np.float32(1), np.float32(2)))
    ones = jnp.ones(s.shape)
    np.testing.assert_array_equal(
        losses.binary_cross_entropy(s, y), losses.binary_cross_entropy(s, ones)
    )


def test_mistakes_are_named():
    s, t = logits(np.float32)
    for call, message in [
        (lambda: losses.binary_cross_entropy(s, jnp.arange(4)), "one_hot"),
        (
            lambda: losses.binary_cross_entropy(s, t[:, :1]),
            r"labels must .* got \[4, 1\]",
        ),
        (lambda: losses.binary_cross_entropy(s[:, 0], t[:, 0]), r"x\[:, None\]"),
        (lambda: losses.binary_kd(s, t, label_weights=s[0]), "broadcast_to"),
        (lambda: losses.binary_kd(s, t, label_weights=s[:, :1]), "label_weights must"),
        (
            lambda: losses.binary_kd(s, t[:, :3]),
            "teacher_logits must have the same number",
        ),
        (
            lambda: losses.binary_kd(s, t, temperature=-1),
            "temperature must be positive",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
