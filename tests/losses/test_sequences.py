"""Losses on the logits of tokens, and what their sums are divided by."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from kdopt import losses
from tests.losses._table import CASES

B, T, C = 4, 3, 6
ON_LOGITS = [case for case in CASES if case.kind == "logits"]
SUMS = [case for case in ON_LOGITS if not case.relations]


def sample():
    rng = np.random.default_rng(0)
    s, t = (jnp.asarray(2 * rng.normal(size=(B, T, C)), jnp.float32) for _ in range(2))
    labels = jnp.asarray(rng.integers(0, C, (B, T))).at[1, 2].set(-100)
    weights = jnp.asarray(rng.uniform(0.5, 2, (B, T)), jnp.float32).at[0, 1].set(0)
    return s.at[0, 1].set(jnp.nan), t, labels, weights


def folded(x):
    return x.reshape(-1, *x.shape[2:])


@functools.cache
def differentiated(case):
    return jax.jit(jax.value_and_grad(case.call))


@pytest.mark.parametrize("case", ON_LOGITS, ids=lambda case: case.name)
def test_tokens_are_examples(case):
    inputs = sample()
    value, slope = differentiated(case)(*inputs)
    expected, slopes = differentiated(case)(*map(folded, inputs))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(folded(slope), slopes, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(slope[0, 1], 0)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("case", ON_LOGITS, ids=lambda case: case.name)
def test_tokens_on_a_mesh(case, kind):
    inputs = sample()
    expected = differentiated(case)(*inputs)
    mesh = jax.make_mesh((2, 3), ("data", "model"), (kind,) * 2)

    def put(x):
        spec = P("data", None, "model") if x.ndim == 3 else P("data", None)
        return jax.device_put(x, NamedSharding(mesh, spec))

    with jax.set_mesh(mesh):
        got = differentiated(case)(*map(put, inputs))
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("case", SUMS, ids=lambda case: case.name)
def test_denominators(case):
    s, t, labels, weights = sample()
    labels = jnp.maximum(labels, 0)
    call = functools.partial(case.call, s, t, labels, weights)
    total = jax.jit(lambda: call(denominator=1))()
    each = C if case.name.startswith("binary") else 1
    mask = (weights > 0).astype(jnp.float32)
    for denominator, size in (
        ("mean", each * jnp.sum(weights)),
        ("count", each * jnp.sum(mask)),
        (7, 7),
        (jnp.int32(11), 11),
    ):
        value = jax.jit(lambda d=denominator: call(denominator=d))()
        np.testing.assert_allclose(value, total / size, rtol=1e-5)
    # Without weights everything counts once.
    whole = functools.partial(case.call, t, t[::-1], labels, None)
    for denominator in ("mean", "count", each * B * T):
        value = whole(denominator=denominator)
        np.testing.assert_allclose(value, whole(), rtol=1e-5)
    assert call(denominator=0 * weights[0, 0]) == 0


@pytest.mark.parametrize("case", SUMS, ids=lambda case: case.name)
def test_micro_batches_add_up(case):
    """Of different numbers of tokens, divided by those of both together."""
    inputs = sample()
    value, slope = differentiated(case)(*inputs)
    parts = [[x[:1] for x in inputs], [x[1:] for x in inputs]]
    one = jax.jit(jax.value_and_grad(functools.partial(case.call, denominator=1)))
    sums = [one(*part) for part in parts]
    ratio = (sums[0][0] + sums[1][0]) / value
    grads = jnp.concatenate([grad for _, grad in sums])
    np.testing.assert_allclose(grads, ratio * slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", SUMS, ids=lambda case: case.name)
def test_wrong_denominators_are_named(case):
    s, t, labels, weights = (jnp.nan_to_num(x) for x in sample())
    for wrong in ("sum", 0, -1.0, np.float32(0), jnp.ones(2)):
        with pytest.raises(Exception, match="denominator"):
            case.call(s, t, labels, weights, denominator=wrong)


def test_weights_of_half():
    """A mean forgets them, a count does not."""
    s, _, labels, _ = sample()
    s, half = jnp.nan_to_num(s), jnp.full((B, T), 0.5)
    call = functools.partial(losses.cross_entropy, s, jnp.maximum(labels, 0))
    np.testing.assert_allclose(call(sample_weights=half), call(), rtol=1e-6)
    by_count = call(sample_weights=half, denominator="count")
    np.testing.assert_allclose(by_count, call() / 2, rtol=1e-6)


def test_ignored_labels():
    s, _, labels, _ = sample()
    s = jnp.nan_to_num(s)
    mask = (labels != 2) & (labels >= 0)
    assert jnp.sum(labels == 2) > 0
    expected = losses.cross_entropy(s, labels, sample_weights=mask)
    for label in (-100, -1, C, 255):
        moved = jnp.where(mask, labels, label)
        np.testing.assert_allclose(losses.cross_entropy(s, moved), expected, rtol=1e-6)
    value = losses.cross_entropy(s, labels, ignore_label=2)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_weights_of_examples_for_tokens_are_named():
    s, t, _, weights = sample()
    for wrong, advice in (
        (weights[:, 0], "repeat it along the missing axes"),
        (weights[..., None], "squeeze it"),
        (s, "not of classes"),
    ):
        with pytest.raises(
            ValueError, match=r"have shape \[...\] = \[4, 3\].*" + advice
        ):
            losses.kd(s, t, sample_weights=wrong)


def test_labels_of_examples_for_tokens_are_named():
    s, _, labels, _ = sample()
    for wrong in (labels[:, 0], labels[..., None], labels[:2], labels[:, :2]):
        with pytest.raises(ValueError, match="labels must"):
            losses.cross_entropy(s, wrong)
