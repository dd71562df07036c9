"""Divergences against many decimals, near agreement and far from it."""

import decimal
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_expit, log_softmax, rel_entr, softmax

from kdopt import losses
from kdopt.losses._divergence import (
    among,
    bernoulli_kl,
    exp_remainder,
    kl_divergence,
    soften,
    target_against_rest,
)
from tests._compiler import OPTIMISED
from tests._turns import in_turn

ONE = jnp.ones(())
DIGITS = decimal.Context(prec=50, Emin=-(10**9), Emax=10**9)
GAPS = (1e-6, 1e-4, 1e-2, 0.3, 1.0, 10.0, 1e3)
TEMPERATURES = (1e-2, 1.0, 3.0, 1e2, 1e4, 1e6)


def softened(student, teacher, where=None):
    return soften(jnp.asarray(student), jnp.asarray(teacher), ONE, ONE, where)


@jax.jit
def split(logits, is_target):
    pair = softened(logits, logits, ~is_target)
    return target_against_rest(pair, is_target, kl_divergence(among(pair, ~is_target)))


def by_decimals(student, teacher, tau_s, tau_t):
    """KL of one row, and p - q, in 50 decimals from the same float32 numbers."""
    with decimal.localcontext(DIGITS):
        logs, probabilities = [], []
        for row, tau in ((student, tau_s), (teacher, tau_t)):
            z = [decimal.Decimal(float(x)) / decimal.Decimal(tau) for x in row]
            powers = [(x - max(z)).exp() for x in z]
            log_sum = sum(powers).ln() + max(z)
            logs.append([x - log_sum for x in z])
            probabilities.append([x / sum(powers) for x in powers])
        (log_p, log_q), (p, q) = logs, probabilities
        kl = sum(b * (y - x) for b, x, y in zip(q, log_p, log_q, strict=True))
        return float(kl), np.array([float(a - b) for a, b in zip(p, q, strict=True)])


@functools.cache
def differentiated():
    def kl(student, teacher, tau_s, tau_t):
        return kl_divergence(soften(student, teacher, tau_s, tau_t))[0]

    return jax.jit(jax.value_and_grad(kl))


def pair_of_rows(gap, scale, offset=0.0):
    rng = np.random.default_rng(round(scale))
    teacher = (scale * rng.normal(size=(1, 12))).astype(np.float32)
    noise = gap * rng.normal(size=teacher.shape)
    return (teacher + offset + noise).astype(np.float32), teacher


def assert_right(student, teacher, tau_s, tau_t):
    expected, slope = by_decimals(student[0], teacher[0], tau_s, tau_t)
    value, grad = differentiated()(student, teacher, np.float32(tau_s), tau_t)
    # Nothing below the smallest numbers of float32 is asked for.
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-37)
    # Relative to the greatest; far apart, log p - log q is known to a rounding of KL.
    error = 1e-5 * np.abs(slope).max() + 2 * np.finfo(np.float32).eps * expected
    np.testing.assert_allclose(grad[0] * tau_s, slope, rtol=0, atol=error + 1e-37)
    assert value >= 0


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("scale", [1.0, 5.0, 30.0])
def test_value_and_gradient_keep_their_digits(gap, scale):
    """Also where all logits of the student are off by the same amount."""
    for offset in (0.0, 1000.0):
        student, teacher = pair_of_rows(gap, scale, offset)
        for tau in (2.0 ** round(np.log2(t)) for t in TEMPERATURES):
            assert_right(student, teacher, tau, tau)


@pytest.mark.parametrize("taus", [(1.0, 4.0), (4.0, 1.0), (64.0, 2.0), (1.0, 1.0625)])
def test_untied_temperatures_keep_their_digits(taus):
    for gap in (1e-4, 1.0, 30.0):
        assert_right(*pair_of_rows(gap, 5.0), *taus)


@pytest.mark.parametrize("tau", in_turn([3.0, 5.0, 6.0, 7.0], 0, of=4))
def test_the_compiler_may_multiply_by_the_inverse(tau):
    """Of logits this size a rounding is a power of ten; the greatest must stay 0."""
    rng = np.random.default_rng(0)
    pair = rng.normal(size=(2, 8, 100)).astype(np.float32)

    @jax.jit
    def differentiate(s, t):
        return {
            loss.__name__: jax.value_and_grad(loss)(s, t, temperature=tau)
            for loss in (losses.kd, losses.dist, losses.batch_correlation)
        }

    program = differentiate.lower(*pair).compile(OPTIMISED)
    for scale in (1e6, 1e10, 1e20, 1e30):
        s, t = scale * rng.normal(size=(2, 8, 100)).astype(np.float32)
        for name, (value, grad) in program(s, t).items():
            assert np.isfinite(value) and np.isfinite(grad).all(), (name, scale)


def test_curvature(x64):
    """The rule of the derivative is itself differentiated."""
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(2, 1, 5))
    hessian = jax.jit(jax.hessian(lambda s: losses.kd(s, t, temperature=2.0)))
    for student in (s, t + 1e-7, 3 * s):
        curve = hessian(student)
        p = softmax(student / 2)[0]
        np.testing.assert_allclose(
            curve[0, :, 0], np.diag(p) - np.outer(p, p), atol=1e-9
        )


def test_teacher_gradient_near_agreement(x64):
    rng = np.random.default_rng(0)
    t = rng.normal(size=(1, 6))
    loss = functools.partial(
        losses.soft_distance, kind="kl", tau_teacher=2.0, teacher_gradient=True
    )
    slope_of = jax.jit(jax.grad(loss, argnums=1))
    for gap in (1e-5, 0.1, 2.0):
        s = t + gap * rng.normal(size=(1, 6))
        log_p, log_q = log_softmax(s)[0], log_softmax(t / 2)[0]
        q, gaps = np.exp(log_q), log_q - log_p
        expected = q * (gaps - q @ gaps)
        np.testing.assert_allclose(slope_of(s, t)[0], expected, atol=1e-12)


def test_bernoulli_keeps_its_digits():
    fn = jax.jit(jax.value_and_grad(bernoulli_kl, argnums=2))
    for gap in GAPS:
        for logit in (-1e4, -60.0, -3.0, 0.0, 0.5, 20.0, 1e4):
            teacher = np.float32(logit)
            student = np.float32(logit + gap)
            expected, slope = by_decimals((student, 0), (teacher, 0), 1, 1)
            value, grad = fn(student, teacher, student - teacher)
            np.testing.assert_allclose(value, expected, rtol=2e-5, atol=1e-37)
            np.testing.assert_allclose(grad, slope[0], rtol=2e-5, atol=1e-37)


def test_remainder_of_the_exponential(x64):
    for dtype, rtol in ((np.float32, 3e-7), (np.float64, 1e-15)):
        x = np.concatenate([np.logspace(-9, np.log10(0.5), 60)] * 2).astype(dtype)
        x[:60] *= -1
        with decimal.localcontext(DIGITS):
            wide = [decimal.Decimal(float(v)) for v in x]
            expected = [float(v.exp() - 1 - v) for v in wide]
        np.testing.assert_allclose(jax.jit(exp_remainder)(x), expected, rtol=rtol)


def test_a_class_that_only_the_student_excludes_is_infinitely_far():
    s = np.array([[1.0, -np.inf, 0.0]], np.float32)
    t = np.array([[0.5, 0.0, 1.0]], np.float32)
    value, slope = jax.jit(jax.value_and_grad(losses.kd))(s, t)
    assert value == np.inf and np.isfinite(slope).all()
    value, slope = jax.jit(jax.value_and_grad(losses.kd))(t, s, temperature=1.0)
    p, q = softmax(t)[0], softmax(s)[0]
    np.testing.assert_allclose(value, rel_entr(q, p).sum(), rtol=1e-6)
    np.testing.assert_allclose(slope[0], p - q, rtol=1e-5)


def test_a_teacher_that_excludes_all_but_the_target():
    """As a one-hot label would; what it excludes still passes its gradient on."""
    s = jnp.array([[0.3, -1.0, 2.0]])
    t, y = jnp.array([[0.0, -jnp.inf, -jnp.inf]]), jnp.array([0])
    value, slope = jax.jit(jax.value_and_grad(losses.dkd))(s, t, y, temperature=1.0)
    expected = jax.jit(jax.value_and_grad(losses.cross_entropy))(s, y)
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    np.testing.assert_allclose(slope, expected[1], rtol=1e-5)
    parts = jax.jit(losses.deepkd)(s, t, y, temperature=1.0)
    np.testing.assert_allclose(parts, [value, value, 0], rtol=1e-6)


# A sure no counts in the mean over classes.
LEARNED = {
    "kd": (losses.kd, 1.0),
    "dkd": (lambda s, t, **options: losses.dkd(s, t, jnp.array([1]), **options), 1.0),
    "binary_kd": (losses.binary_kd, 0.75),
}


@pytest.mark.parametrize("name", LEARNED)
def test_a_learned_temperature_and_impossible_classes(name):
    loss, ratio = LEARNED[name]
    pair = np.array([[[1.0, 2.0, 0.0]], [[0.0, 2.0, 1.0]]], np.float32)
    wide = [np.pad(x, ((0, 0), (0, 1)), constant_values=-np.inf) for x in pair]
    slope = jax.jit(jax.grad(lambda tau, s, t: loss(s, t, temperature=tau)))
    np.testing.assert_allclose(slope(2.0, *wide), ratio * slope(2.0, *pair), rtol=1e-5)


def test_two_classes_of_which_one_is_impossible():
    x, y = jnp.array([[0.7, -jnp.inf]]), jnp.array([0])
    for loss in (losses.dkd, lambda *args: sum(losses.deepkd(*args))):
        value, slope = jax.jit(jax.value_and_grad(loss))(x, x, y)
        assert value == 0
        np.testing.assert_array_equal(slope, 0)


def test_a_teacher_without_a_class_is_a_fault_that_shows():
    s, t = jnp.array([[1.0, 2.0, 0.0]]), jnp.array([[-jnp.inf] * 3])
    assert np.isnan(jax.jit(losses.kd)(s, t))


def test_split_against_probabilities():
    logits = np.array([[1.0, -2.0, 0.5, 3.0]], np.float32)
    is_target = jnp.array([[False, True, False, False]])
    p = softmax(logits)[0]
    target = split(logits, is_target)
    for yes in map(np.asarray, (target.student, target.teacher)):
        np.testing.assert_allclose(expit(yes[0]), p[1], rtol=1e-6)
        np.testing.assert_allclose(expit(-yes[0]), 1 - p[1], rtol=1e-6)
    np.testing.assert_allclose(target.gap, 0, atol=1e-7)


def test_rest_of_a_certain_prediction_keeps_its_digits():
    # 1 - p of the target is 0 in float32; its logarithm is -1000 all the same.
    target = split(jnp.array([[1e3, 0.0]]), jnp.array([[True, False]]))
    np.testing.assert_allclose(log_expit(-np.asarray(target.student)), [-1e3])


def test_kl_against_scipy_and_with_unknown_classes():
    q, p = np.array([[0.2, 0.3, 0.5]]), np.array([[0.6, 0.1, 0.3]])
    kl = jax.jit(lambda s, t: kl_divergence(softened(s, t)))
    value = kl(np.log(p), np.log(q))
    np.testing.assert_allclose(value, rel_entr(q, p).sum(1), rtol=1e-6)
    value = kl(np.log([[0.25, 0.75]]), np.array([[0.0, -np.inf]]))
    np.testing.assert_allclose(value, [np.log(4)], rtol=1e-6)
