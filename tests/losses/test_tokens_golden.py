"""Values and gradients of the losses for text, from formulas in double precision.

The numbers are means over four tokens, in nats, without a factor of the temperature.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from kdopt import losses
from tests._turns import in_turn
from tests.losses._inputs import TOKEN_LABELS, token_logits

Y = TOKEN_LABELS.astype(np.int32)
MASK = np.array([1.0, 1.0, 0.0, 1.0])


def top_3(s, t, **options):
    return losses.top_k_kl(s, t, k=3, **options)


def stored_top_3(s, t, renormalized=False, **options):
    stored, indices = jax.lax.top_k(t, 3)
    total = jax.nn.logsumexp(stored if renormalized else t, axis=-1)
    return losses.top_k_kl(s, stored, indices=indices, log_normalizer=total, **options)


GOLDEN = {
    "hard_ce": (lambda s, t: losses.cross_entropy(s, Y), 2.91578294704295),
    "hard_ce_masked": (
        lambda s, t: losses.cross_entropy(s, Y, sample_weights=MASK),
        3.19015575024332,
    ),
    "ce": (lambda s, t: losses.soft_distance(s, t), 3.56368268706503),
    "kl": (lambda s, t: losses.kd(s, t, temperature=1.0), 1.90370216813691),
    "kd_2": (lambda s, t: losses.kd(s, t, temperature=2.0), 2.61983935368891),
    "kd_2_masked": (
        lambda s, t: losses.kd(s, t, temperature=2.0, sample_weights=MASK),
        2.87284261738895,
    ),
    "kd_4_masked": (
        lambda s, t: losses.kd(s, t, sample_weights=MASK),
        3.17197103475102,
    ),
    "mse": (lambda s, t: losses.soft_distance(s, t, kind="mse"), 7.39776886759051),
    "reverse_kl": (losses.reverse_kl, 1.8377146284173),
    "jsd_0.1": (
        functools.partial(losses.jensen_shannon, beta=0.1),
        0.127838252587134,
    ),
    "jsd_0.5": (losses.jensen_shannon, 0.30011582228927),
    "jsd_0.9": (
        functools.partial(losses.jensen_shannon, beta=0.9),
        0.129663989146199,
    ),
    "jsd_0": (functools.partial(losses.jensen_shannon, beta=0.0), 1.90370216813691),
    "jsd_1": (functools.partial(losses.jensen_shannon, beta=1.0), 1.8377146284173),
    "skew_0.1": (losses.skew_kl, 1.00268589474811),
    "skew_0.5": (functools.partial(losses.skew_kl, alpha=0.5), 0.30332766754648),
    "skew_0": (functools.partial(losses.skew_kl, alpha=0.0), 1.90370216813691),
    "reverse_skew_0.1": (
        functools.partial(losses.skew_kl, reverse=True),
        1.01913150757564,
    ),
    "reverse_skew_0.5": (
        functools.partial(losses.skew_kl, alpha=0.5, reverse=True),
        0.296903977032061,
    ),
    "reverse_skew_0": (
        functools.partial(losses.skew_kl, alpha=0.0, reverse=True),
        1.8377146284173,
    ),
    "total_variation": (losses.total_variation, 0.578417659920459),
    "universal_logit": (losses.universal_logit, 0.394105799875702),
    "top_3_ghost": (top_3, 1.55300227718065),
    "top_3_ghost_reverse": (
        functools.partial(top_3, reverse=True),
        0.773033557928838,
    ),
    "top_3_renormalize": (
        functools.partial(top_3, tail="renormalize"),
        0.991000663546162,
    ),
    "top_3_truncate": (functools.partial(top_3, tail="truncate"), 1.77857103995806),
    "stored_ghost": (stored_top_3, 1.55300227718065),
    "stored_ghost_reverse": (
        functools.partial(stored_top_3, reverse=True),
        0.773033557928838,
    ),
    "stored_renormalize": (
        functools.partial(stored_top_3, tail="renormalize"),
        0.991000663546162,
    ),
    "stored_truncate": (
        functools.partial(stored_top_3, tail="truncate"),
        1.77857103995806,
    ),
    # The teacher renormalised, the student whole.
    "stored_teacher_renormalized": (
        functools.partial(stored_top_3, renormalized=True, tail="truncate"),
        2.72498032109477,
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_double_precision(name, x64):
    loss, expected = GOLDEN[name]
    np.testing.assert_allclose(loss(*token_logits()), expected, rtol=1e-10)


@pytest.mark.parametrize("name", in_turn(GOLDEN, 0))
def test_single_precision(name):
    loss, expected = GOLDEN[name]
    value = jax.jit(loss)(*token_logits(np.float32))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_another_vocabulary(x64):
    (s, t), loss = token_logits(classes=13), jax.jit(losses.universal_logit)
    np.testing.assert_allclose(loss(s, t), 0.422995489220302, rtol=1e-10)
    assert loss(s, t) == loss(t, s)


def probabilities():
    return [softmax(x, axis=1) for x in token_logits()]


def kept():
    t = np.asarray(token_logits()[1])
    return t >= np.sort(t, axis=-1)[:, -3:-2]


def around_mean(p, x):
    return p * (x - np.sum(p * x, axis=-1, keepdims=True))


def of_skew(p, q, alpha=0.1):
    ratio = q / (alpha * q + (1 - alpha) * p)
    return -(1 - alpha) * around_mean(p, ratio)


def of_reverse_skew(p, q, alpha=0.1):
    m = (1 - alpha) * q + alpha * p
    return around_mean(p, np.log(p) - np.log(m) - alpha * p / m)


def of_ghost(p, q):
    p_rest, q_rest = (
        np.sum(np.where(kept(), 0, x), axis=-1, keepdims=True) for x in (p, q)
    )
    return np.where(kept(), p - q, p * (1 - q_rest / p_rest))


def of_renormalized(p, q):
    p, q = (np.where(kept(), x, 0) for x in (p, q))
    return p / np.sum(p, axis=-1, keepdims=True) - q / np.sum(q, axis=-1, keepdims=True)


def of_truncated(p, q):
    q = np.where(kept(), q, 0)
    return p * np.sum(q, axis=-1, keepdims=True) - q


def of_generalized(p, q):
    """That of the truncated form, and of the student's mass."""
    return of_truncated(p, q) + around_mean(p, kept().astype(p.dtype))


CLOSED = {
    "kl": (lambda p, q: p - q, 0.269998562993394),
    "reverse_kl": (
        lambda p, q: around_mean(p, np.log(p) - np.log(q)),
        0.380751740689709,
    ),
    "jsd_0.5": (
        lambda p, q: around_mean(p, np.log(p) - np.log((p + q) / 2)) / 2,
        0.0374526537868787,
    ),
    "jsd_0.1": (
        lambda p, q: 0.9 * around_mean(p, np.log(p) - np.log(0.1 * q + 0.9 * p)),
        None,
    ),
    "skew_0.1": (of_skew, 0.119577885333836),
    "reverse_skew_0.1": (of_reverse_skew, 0.134840832254113),
    "total_variation": (
        lambda p, q: around_mean(p, np.sign(p - q)) / 2,
        0.0690772183833401,
    ),
    "top_3_ghost": (of_ghost, 0.238297947263259),
    "stored_ghost": (of_ghost, 0.238297947263259),
    "top_3_renormalize": (of_renormalized, None),
    "stored_renormalize": (of_renormalized, None),
    "top_3_truncate": (of_truncated, None),
    "universal_logit": (None, None),
}


@pytest.mark.parametrize("name", [name for name in CLOSED if CLOSED[name][0]])
def test_gradients_are_the_closed_forms(name, x64):
    closed, length = CLOSED[name]
    slope = jax.jit(jax.grad(GOLDEN[name][0]))(*token_logits())
    np.testing.assert_allclose(slope, closed(*probabilities()) / 4, atol=1e-10)
    if length is not None:
        np.testing.assert_allclose(np.linalg.norm(slope), length, rtol=1e-10)


def test_gradient_of_the_generalized_form(x64):
    loss = functools.partial(top_3, tail="generalized")
    slope = jax.jit(jax.grad(loss))(*token_logits())
    expected = of_generalized(*probabilities()) / 4
    np.testing.assert_allclose(slope, expected, atol=1e-10)


def test_gradient_through_the_sort(x64):
    s, t = token_logits(classes=13)
    slope = jax.jit(jax.grad(losses.universal_logit))(s, t)
    np.testing.assert_allclose(np.linalg.norm(slope), 0.160462320669934, rtol=1e-10)
    p, q = softmax(s, axis=1), softmax(t, axis=1)
    places = np.argsort(np.argsort(-p, axis=-1), axis=-1)
    partner = np.take_along_axis(-np.sort(-q, axis=-1), places, axis=-1)
    expected = around_mean(p, np.sign(p - partner)) / 4
    np.testing.assert_allclose(slope, expected, atol=1e-10)


def test_temperatures(x64):
    """Tempered logits, times the factor."""
    s, t = token_logits()
    for loss, factor in (
        (losses.reverse_kl, 4),
        (losses.jensen_shannon, 4),
        (losses.skew_kl, 4),
        (top_3, 4),
        (losses.total_variation, 2),
        (losses.universal_logit, 2),
    ):
        value = loss(s, t, temperature=2.0)
        np.testing.assert_allclose(value, factor * loss(s / 2, t / 2), rtol=1e-12)
