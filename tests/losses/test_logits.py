"""Basic logit losses: parts, identities and limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import losses
from tests._compiler import OPTIMISED
from tests._turns import every_third
from tests.losses._inputs import LABELS, logits
from tests.losses._table import CASES

ON_LOGITS = [case for case in CASES if case.kind == "logits"]
SUMS_OVER_CLASSES = [case for case in ON_LOGITS if not case.name.startswith("binary")]
WEIGHTS = jnp.array([1.0, 2.0, 0.5, 1.0])


@functools.cache
def differentiated(case):
    return jax.jit(jax.value_and_grad(case.call))


def test_decoupled_parts(x64):
    # megvii-research/mdistiller a08d46f, run in float64
    s, t = logits()
    y = jnp.asarray(LABELS)
    tckd, nckd = 0.3061186559066, 3.1107780825948
    for options, expected in [
        ({"beta": 0.0}, tckd),
        ({"alpha": 0.0, "beta": 1.0}, nckd),
        ({"beta": 2.0}, tckd + 2 * nckd),
        ({"beta": 0.5, "temperature": 1.0}, 1.0500118164919),
    ]:
        np.testing.assert_allclose(losses.dkd(s, t, y, **options), expected, rtol=1e-10)


def test_kd_is_dkd_weighted_by_the_teacher(x64):
    s, t = logits()
    y = jnp.asarray(LABELS)
    expected = []
    for row in range(len(y)):
        pair = s[row : row + 1], t[row : row + 1]
        rest = 1 - jax.nn.softmax(t[row] / 4)[y[row]]
        expected.append(losses.dkd(*pair, y[row : row + 1], beta=float(rest)))
    np.testing.assert_allclose(losses.kd(s, t), np.mean(expected), rtol=1e-10)


def test_decoupled_with_two_classes_has_no_other_classes(x64):
    s, t = jnp.array([[1.0, -2.0]]), jnp.array([[0.5, 3.0]])
    y = jnp.array([1])
    value, slope = jax.value_and_grad(losses.dkd)(s, t, y, alpha=0.0)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)
    np.testing.assert_allclose(losses.dkd(s, t, y), losses.kd(s, t), rtol=1e-12)


@pytest.mark.parametrize("kind", ["ce", "kl"])
def test_gradient_with_untied_temperatures(x64, kind):
    s, t = logits()
    slope = jax.grad(losses.soft_distance)(
        s, t, kind=kind, tau_student=2.0, tau_teacher=5.0
    )
    p, q = jax.nn.softmax(s / 2), jax.nn.softmax(t / 5)
    np.testing.assert_allclose(slope, 5 / len(s) * (p - q), atol=1e-12)


def test_mse_is_that_of_scaled_logits(x64):
    s, t = logits()
    options = {"kind": "mse", "tau_student": 2.0, "tau_teacher": 5.0}
    value, slope = jax.value_and_grad(losses.soft_distance)(s, t, **options)
    gap = s / 2 - t / 5
    np.testing.assert_allclose(value, 10 * np.mean(gap**2), rtol=1e-12)
    np.testing.assert_allclose(slope, 2 * 5 * gap / s.size, rtol=1e-12)


def test_kl_is_ce_less_the_entropy_of_the_teacher(x64):
    s, t = logits()
    ce = losses.soft_distance(s, t, kind="ce", tau_teacher=3.0)
    entropy = losses.soft_distance(t, t, kind="ce", tau_student=3.0, tau_teacher=3.0)
    kl = losses.soft_distance(s, t, kind="kl", tau_teacher=3.0)
    np.testing.assert_allclose(kl, ce - entropy / 3, rtol=1e-12)


def test_hot_kd_is_the_squared_distance_of_centred_logits(x64):
    s, t = logits()
    gap = (s - t) - jnp.mean(s - t, axis=1, keepdims=True)
    limit = jnp.mean(jnp.sum(gap**2, axis=1)) / (2 * s.shape[1])
    np.testing.assert_allclose(losses.kd(s, t, temperature=1e4), limit, rtol=1e-3)


@pytest.mark.parametrize("kind", ["ce", "kl", "mse"])
def test_teacher_is_trained_only_if_asked(kind, x64):
    s, t = logits()

    def at(h, asked=True):
        moved = t + h * jnp.cos(s)
        return losses.soft_distance(s, moved, kind=kind, teacher_gradient=asked)

    assert jax.grad(at)(0.0, False) == 0
    h = 1e-5
    np.testing.assert_allclose(jax.grad(at)(0.0), (at(h) - at(-h)) / (2 * h), rtol=1e-8)


def test_unknown_kind():
    with pytest.raises(Exception, match="kind"):
        losses.soft_distance(jnp.ones((1, 2)), jnp.ones((1, 2)), kind="l1")


# What a head makes of hidden states is never impossible.
@every_third([case for case in SUMS_OVER_CLASSES if case.name != "linear_losses"], 0)
def test_a_class_that_is_impossible_for_both_changes_nothing(case):
    """As the entries that fill up a vocabulary."""
    y, (s, t) = jnp.asarray(LABELS), logits(np.float32)
    loss = differentiated(case)
    value, slope = loss(s, t, y, WEIGHTS)
    wide = [jnp.pad(x, ((0, 0), (0, 2)), constant_values=-jnp.inf) for x in (s, t)]
    got, grad = loss(*wide, y, WEIGHTS)
    np.testing.assert_allclose(got, value, rtol=1e-5)
    np.testing.assert_allclose(grad[:, :10], slope, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(grad[:, 10:], 0)


# Correlations are differences of products, of which each has its own rounding.
LOOSER = {"batch_correlation": 0.1, "class_correlation": 0.1, "dist": 1e-2}


@every_third(ON_LOGITS, 1)
@pytest.mark.parametrize("gap", [1e-3, 1e-2])
def test_single_precision_near_agreement(case, gap):
    y, (_, t) = jnp.asarray(LABELS), logits(np.float32)
    noise = np.random.default_rng(0).normal(size=t.shape).astype(np.float32)
    loss = differentiated(case)
    value, slope = loss(t + gap * noise, t, y, WEIGHTS)
    student = np.asarray(t + gap * noise)
    with jax.enable_x64(True):
        wide = (jnp.asarray(x, jnp.float64) for x in (student, np.asarray(t)))
        expected, slopes = loss(*wide, y, WEIGHTS)
    rtol = LOOSER.get(case.name, 1e-3)
    np.testing.assert_allclose(value, expected, rtol=rtol)
    scale = np.abs(slopes).max()
    np.testing.assert_allclose(slope, slopes, rtol=0, atol=rtol * scale)
    assert value >= 0


@every_third([case for case in SUMS_OVER_CLASSES if case.name != "soft_mse"], 2)
def test_logits_of_any_size_under_a_softmax(case):
    """In the program that users get, in which a division may become a product."""
    y, (s, t) = jnp.asarray(LABELS), logits(np.float32)
    loss = differentiated(case)
    program = loss.lower(s, t, y, WEIGHTS).compile(OPTIMISED)
    for scale in (1e4, 1e10, 1e20, 1e30):
        for pair in ((scale * s, scale * t), (scale * s, t), (s, scale * t)):
            value, grad = program(*pair, y, WEIGHTS)
            assert np.isfinite(value) and np.isfinite(grad).all(), scale
