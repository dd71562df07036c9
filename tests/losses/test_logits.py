"""Basic logit losses: parts, identities and limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

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
    options, expected = zip(
        ({"beta": 0.0}, tckd),
        ({"alpha": 0.0, "beta": 1.0}, nckd),
        ({"beta": 2.0}, tckd + 2 * nckd),
        ({"beta": 0.5, "temperature": 1.0}, 1.0500118164919),
        strict=True,
    )
    values = jax.jit(lambda s, t: [losses.dkd(s, t, y, **o) for o in options])(s, t)
    np.testing.assert_allclose(values, expected, rtol=1e-10)


def test_kd_is_dkd_weighted_by_the_teacher(x64):
    s, t = map(np.asarray, logits())
    y = LABELS

    @jax.jit
    def dkd_of_each_row():
        found = []
        for row in range(len(y)):
            pair = s[row : row + 1], t[row : row + 1]
            rest = 1 - softmax(t[row] / 4)[y[row]]
            found.append(losses.dkd(*pair, y[row : row + 1], beta=float(rest)))
        return found

    expected = np.mean(dkd_of_each_row())
    np.testing.assert_allclose(jax.jit(losses.kd)(s, t), expected, rtol=1e-10)


def test_decoupled_with_two_classes_has_no_other_classes(x64):
    s, t = jnp.array([[1.0, -2.0]]), jnp.array([[0.5, 3.0]])
    y = jnp.array([1])
    other = functools.partial(losses.dkd, alpha=0.0)
    value, slope = jax.jit(jax.value_and_grad(other))(s, t, y)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)
    dkd, kd = jax.jit(lambda s, t: (losses.dkd(s, t, y), losses.kd(s, t)))(s, t)
    np.testing.assert_allclose(dkd, kd, rtol=1e-12)


@pytest.mark.parametrize("kind", ["ce", "kl"])
def test_gradient_with_untied_temperatures(x64, kind):
    s, t = map(np.asarray, logits())
    slope = jax.jit(jax.grad(losses.soft_distance), static_argnames="kind")(
        s, t, kind=kind, tau_student=2.0, tau_teacher=5.0
    )
    p, q = softmax(s / 2, axis=1), softmax(t / 5, axis=1)
    np.testing.assert_allclose(slope, 5 / len(s) * (p - q), atol=1e-12)


def test_mse_is_that_of_scaled_logits(x64):
    s, t = map(np.asarray, logits())
    loss = functools.partial(
        losses.soft_distance, kind="mse", tau_student=2.0, tau_teacher=5.0
    )
    value, slope = jax.jit(jax.value_and_grad(loss))(s, t)
    gap = s / 2 - t / 5
    np.testing.assert_allclose(value, 10 * np.mean(gap**2), rtol=1e-12)
    np.testing.assert_allclose(slope, 2 * 5 * gap / s.size, rtol=1e-12)


def test_kl_is_ce_less_the_entropy_of_the_teacher(x64):
    @jax.jit
    def both(s, t):
        ce = losses.soft_distance(s, t, kind="ce", tau_teacher=3.0)
        entropy = losses.soft_distance(
            t, t, kind="ce", tau_student=3.0, tau_teacher=3.0
        )
        return losses.soft_distance(s, t, kind="kl", tau_teacher=3.0), ce - entropy / 3

    kl, expected = both(*logits())
    np.testing.assert_allclose(kl, expected, rtol=1e-12)


def test_hot_kd_is_the_squared_distance_of_centred_logits(x64):
    s, t = map(np.asarray, logits())
    gap = (s - t) - np.mean(s - t, axis=1, keepdims=True)
    limit = np.mean(np.sum(gap**2, axis=1)) / (2 * s.shape[1])
    value = jax.jit(losses.kd)(s, t, temperature=1e4)
    np.testing.assert_allclose(value, limit, rtol=1e-3)


@pytest.mark.parametrize("kind", ["ce", "kl", "mse"])
def test_teacher_is_trained_only_if_asked(kind, x64):
    s, t = logits()

    @functools.partial(jax.jit, static_argnums=1)
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
    wide = [np.pad(x, ((0, 0), (0, 2)), constant_values=-np.inf) for x in (s, t)]
    got, grad = loss(*wide, y, WEIGHTS)
    grad = np.asarray(grad)
    np.testing.assert_allclose(got, value, rtol=1e-5)
    np.testing.assert_allclose(grad[:, :10], slope, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(grad[:, 10:], 0)


# Correlations are differences of products, of which each has its own rounding.
LOOSER = {"batch_correlation": 0.1, "class_correlation": 0.1, "dist": 1e-2}


@every_third(ON_LOGITS, 1)
@pytest.mark.parametrize("gap", [1e-3, 1e-2])
def test_single_precision_near_agreement(case, gap):
    y, t = jnp.asarray(LABELS), np.asarray(logits(np.float32)[1])
    noise = np.random.default_rng(0).normal(size=t.shape).astype(np.float32)
    loss, student = differentiated(case), t + gap * noise
    value, slope = loss(student, t, y, WEIGHTS)
    with jax.enable_x64(True):
        wide = (x.astype(np.float64) for x in (student, t))
        expected, slopes = loss(*wide, y, WEIGHTS)
    rtol = LOOSER.get(case.name, 1e-3)
    np.testing.assert_allclose(value, expected, rtol=rtol)
    scale = np.abs(slopes).max()
    np.testing.assert_allclose(slope, slopes, rtol=0, atol=rtol * scale)
    assert value >= 0


@every_third([case for case in SUMS_OVER_CLASSES if case.name != "soft_mse"], 2)
def test_logits_of_any_size_under_a_softmax(case):
    """In the program that users get, in which a division may become a product."""
    y, (s, t) = jnp.asarray(LABELS), map(np.asarray, logits(np.float32))
    loss = differentiated(case)
    program = loss.lower(s, t, y, WEIGHTS).compile(OPTIMISED)
    for scale in (1e4, 1e10, 1e20, 1e30):
        for pair in ((scale * s, scale * t), (scale * s, t), (s, scale * t)):
            value, grad = program(*pair, y, WEIGHTS)
            assert np.isfinite(value) and np.isfinite(grad).all(), scale
