"""The likeliest classes of a teacher, and what becomes of the others."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import losses
from tests.losses._inputs import token_logits

STUDENT = np.array([[1.0, 1.0, -0.5, 2.0, 0.3, -1.0, 1.5, 0.0]])
TEACHER = np.array([[2.0, 0.5, -1.0, 1.5, 0.0, -0.5, 3.0, -2.0]])
GOLDEN = {
    1.0: {
        "renormalize": 0.31980017139053846,
        "truncate": 0.49673587407044395,
        "ghost": 0.38902123019106183,
        "generalized": 0.30909282411958827,
        "reverse": 0.29715037476053663,
    },
    2.0: {
        "renormalize": 0.08734175366128477,
        "truncate": 0.22038216616281547,
        "ghost": 0.10360527492215652,
        "generalized": 0.07784407305483987,
        "reverse": 0.06857128214317515,
    },
}


def options_of(name):
    if name == "reverse":
        return {"tail": "generalized", "reverse": True}
    return {"tail": name}


def stored(teacher, k, tau=1.0):
    logits, indices = jax.lax.top_k(teacher, k)
    total = jax.nn.logsumexp(teacher / tau, axis=-1)
    return {"teacher_logits": logits, "indices": indices, "log_normalizer": total}


@jax.jit
def golden_values(s, t, tau):
    """By name, from full logits and from stored ones."""
    found = {}
    for name in GOLDEN[1.0]:
        options = {"temperature": tau, **options_of(name)}
        whole = losses.top_k_kl(s, t, k=3, **options)
        found[name] = whole, losses.top_k_kl(s, **stored(t, 3, tau), **options)
    return found


@pytest.mark.parametrize("tau", GOLDEN)
@pytest.mark.parametrize("name", GOLDEN[1.0])
def test_golden_values(name, tau, x64):
    for value in golden_values(STUDENT, TEACHER, tau)[name]:
        np.testing.assert_allclose(value, tau**2 * GOLDEN[tau][name], rtol=1e-6)


def test_all_classes_are_the_divergence(x64):
    s, t = token_logits()
    expected = losses.kd(s, t, temperature=1.0)
    for name in ("ghost", "renormalize", "truncate", "generalized"):
        for k in (11, 50):
            value = losses.top_k_kl(s, t, k=k, tail=name)
            np.testing.assert_allclose(value, expected, rtol=1e-10)
        value = losses.top_k_kl(s, **stored(t, 11), tail=name)
        np.testing.assert_allclose(value, expected, rtol=1e-10)


def test_a_ghost_is_a_lower_bound_that_grows(x64):
    s, t = token_logits()
    values = [float(losses.top_k_kl(s, t, k=k)) for k in range(1, 12)]
    assert values == sorted(values)
    np.testing.assert_allclose(values[-1], losses.kd(s, t, temperature=1.0), rtol=1e-12)
    # One class alone says nothing when it is renormalised.
    assert losses.top_k_kl(s, t, k=1, tail="renormalize") == 0


@jax.jit
def of_every_tail(s, t):
    """Values and gradients by name."""
    return {
        name: jax.value_and_grad(losses.top_k_kl)(s, t, k=20, **options_of(name))
        for name in ("ghost", "renormalize", "generalized", "reverse")
    }


@pytest.mark.parametrize("gap", [1e-3, 1e-2, 1.0])
def test_digits_near_agreement(gap):
    rng = np.random.default_rng(0)
    t = (3 * rng.normal(size=(5, 200))).astype(np.float32)
    s = (t + gap * rng.normal(size=t.shape)).astype(np.float32)
    single = of_every_tail(jnp.asarray(s), jnp.asarray(t))
    with jax.enable_x64(True):
        double = of_every_tail(*(jnp.asarray(x, jnp.float64) for x in (s, t)))
    for name, (value, slope) in single.items():
        expected, slopes = double[name]
        np.testing.assert_allclose(value, expected, rtol=2e-3, err_msg=name)
        atol = 1e-3 * np.abs(slopes).max()
        np.testing.assert_allclose(slope, slopes, rtol=0, atol=atol, err_msg=name)


def test_stored_logits_of_any_size():
    s, t = map(np.asarray, token_logits(np.float32))
    loss = jax.value_and_grad(losses.top_k_kl)

    @jax.jit
    def differentiate(s, t):
        kept = stored(t, 3)
        return {
            (name, reverse): loss(s, **kept, tail=name, reverse=reverse)
            for name in ("ghost", "renormalize", "generalized")
            for reverse in (False, True)
        }

    for scale in (1e4, 1e10):
        found = differentiate(scale * s, scale * t)
        for name, (value, slope) in found.items():
            assert np.isfinite(value) and np.isfinite(slope).all(), name


def test_stored_padding_and_masks():
    """An index of -1 is no class; a masked token may hold anything."""
    s, t = map(np.asarray, token_logits(np.float32))
    kept = jax.tree.map(np.asarray, jax.jit(stored, static_argnums=1)(t, 3))
    expected = jax.jit(losses.top_k_kl)(
        s[:3], **{name: x[:3] for name, x in kept.items()}
    )
    wide = {
        "teacher_logits": np.pad(kept["teacher_logits"], ((0, 0), (0, 1))),
        "indices": np.pad(kept["indices"], ((0, 0), (0, 1)), constant_values=-1),
        "log_normalizer": kept["log_normalizer"].copy(),
    }
    wide["log_normalizer"][3] = np.nan
    wide["teacher_logits"][3] = np.nan
    spoilt = s.copy()
    spoilt[3] = np.nan
    loss = functools.partial(
        losses.top_k_kl, **wide, sample_weights=np.float32([1.0, 1.0, 1.0, 0.0])
    )
    value, slope = jax.jit(jax.value_and_grad(loss))(spoilt)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.isfinite(slope).all() and not np.any(np.asarray(slope)[3])


def test_wrong_arguments_are_named():
    s, t = map(np.asarray, token_logits(np.float32))
    kept = jax.jit(stored, static_argnums=1)(t, 3)
    teacher, indices = (np.asarray(kept[x]) for x in ("teacher_logits", "indices"))
    for call, message in (
        (lambda: losses.top_k_kl(s, t), "Pass k for the full logits"),
        (
            lambda: losses.top_k_kl(s, t, k=3, indices=indices),
            "Pass k for the full logits",
        ),
        (lambda: losses.top_k_kl(s, t, k=0), "k must be at least 1"),
        (
            lambda: losses.top_k_kl(s, t, k=3, tail="truncate", reverse=True),
            "cannot be reversed",
        ),
        (lambda: losses.top_k_kl(s, teacher, indices=indices), "pass log_normalizer"),
        (
            lambda: losses.top_k_kl(s, teacher, indices=indices[:, :2]),
            "indices must be an integer for each",
        ),
        (
            lambda: losses.top_k_kl(
                s, teacher, indices=indices, log_normalizer=teacher
            ),
            "log_normalizer must be a number for each token",
        ),
        (
            lambda: losses.top_k_kl(s, teacher[:2], indices=indices[:2]),
            "k stored logits for each token",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(call)
    with pytest.raises(Exception, match="tail"):
        losses.top_k_kl(s, t, k=3, tail="none")
