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


@jax.jit
def values(s, t, soft):
    return {
        "hard": losses.binary_cross_entropy(s, t > 0),
        "soft": losses.binary_cross_entropy(s, soft),
        "kd_1": losses.binary_kd(s, t),
        "kd_3": losses.binary_kd(s, t, temperature=3.0),
    }


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, x64):
    for dtype, rtol in ((np.float64, 1e-12), (np.float32, 1e-6)):
        s, t = logits(dtype)
        value = values(s, t, expit(t))[name]
        np.testing.assert_allclose(value, GOLDEN[name], rtol=rtol)


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_gradients(x64, tau):
    s, t = map(np.asarray, logits())
    p, q = expit(s / tau), expit(t / tau)
    slope = jax.jit(jax.grad(losses.binary_kd))(s, t, temperature=tau)
    np.testing.assert_allclose(slope, tau * (p - q) / s.size, atol=1e-14)
    slope = jax.jit(jax.grad(losses.binary_cross_entropy))(s, q)
    np.testing.assert_allclose(slope, (expit(s) - q) / s.size, atol=1e-14)


def test_one_class_against_its_negation_is_kd():
    """Two logits z and -z of a softmax are one logit 2z of a sigmoid."""
    s, t = (np.asarray(x)[:, :1] for x in logits(np.float32))
    both = [np.concatenate([x, -x], axis=1) for x in (s, t)]
    value = jax.jit(losses.binary_kd)(2 * s, 2 * t)
    expected = jax.jit(losses.kd)(*both, temperature=1.0)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


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
    s, t = np.array([s], np.float32), np.array([t], np.float32)
    value, slope = jax.jit(jax.value_and_grad(losses.binary_kd))(s, t)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.isfinite(slope).all()
    if np.isfinite(expected):
        certain = np.isinf(t) | (np.abs(t) > 100)
        labels = np.where(certain, (t > 0).astype(t.dtype), 0.5)
        value, slope = jax.jit(jax.value_and_grad(losses.binary_cross_entropy))(
            s, labels
        )
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        assert np.isfinite(slope).all()


GARBAGE = (np.nan, np.inf, -np.inf, 3e38)


@pytest.mark.parametrize("name", ["binary_kd", "binary_cross_entropy"])
def test_labels_of_weight_0_are_left_out(name):
    """The mean is over the labels that are known, wherever they are."""
    s, t = map(np.asarray, logits(np.float32))
    t = expit(t) if name == "binary_cross_entropy" else t
    known = np.random.default_rng(0).random(s.shape) < 0.6
    known[2] = False
    weights = known.astype(np.float32)
    rows, columns = np.nonzero(known)
    pairs = s[rows, columns][:, None], t[rows, columns][:, None]
    fn = jax.jit(jax.value_and_grad(getattr(losses, name)))
    expected, slopes = fn(*pairs)
    for garbage in GARBAGE:
        spoilt = [np.where(known, x, garbage) for x in (s, t)]
        value, slope = fn(*spoilt, label_weights=weights)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        np.testing.assert_allclose(
            np.asarray(slope)[known], np.asarray(slopes)[:, 0], rtol=1e-5
        )
        np.testing.assert_array_equal(np.asarray(slope)[~known], 0)
    assert fn(s, t, label_weights=np.zeros_like(weights))[0] == 0


def test_both_weights_multiply():
    loss, (s, t) = jax.jit(losses.binary_kd), map(np.asarray, logits(np.float32))
    a, b = np.array([1.0, 0.0, 2.0, 0.5], np.float32), np.ones(s.shape, np.float32)
    b[:, ::3] = 3
    value = loss(s, t, label_weights=b, sample_weights=a)
    entries = [
        [loss(s[i : i + 1, c : c + 1], t[i : i + 1, c : c + 1]) for c in range(10)]
        for i in range(4)
    ]
    expected = np.average(np.array(entries), weights=a[:, None] * b)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("label", [-1, 2, 255, np.nan])
def test_a_label_that_is_none_is_left_out(label):
    loss = jax.jit(losses.binary_cross_entropy)
    s, t = map(np.asarray, logits(np.float32))
    y = (t > 0).astype(np.float32)
    known = np.ones(y.shape, bool)
    known[1, 3] = known[2] = False
    expected = loss(s, y, label_weights=known)
    spoilt = np.where(known, y, label)
    np.testing.assert_allclose(loss(s, spoilt), expected, rtol=1e-6)
    if not np.isnan(label):
        integers = spoilt.astype(np.int32)
        np.testing.assert_allclose(loss(s, integers), expected, rtol=1e-6)


def test_a_mixture_may_be_rounded():
    """The labels of a mixture may be a rounding above 1."""
    loss, (s, _) = jax.jit(losses.binary_cross_entropy), logits(np.float32)
    y = np.full(s.shape, np.nextafter(np.float32(1), np.float32(2)))
    np.testing.assert_array_equal(loss(s, y), loss(s, np.ones_like(y)))


def test_mistakes_are_named():
    s, t = map(np.asarray, logits(np.float32))
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
