"""Losses on the logits of tokens, and what their sums are divided by."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from kdopt import losses
from tests._turns import every_third
from tests.losses._table import CASES

B, T, C = 4, 3, 6
ON_LOGITS = [case for case in CASES if case.kind == "logits"]
SUMS = [case for case in ON_LOGITS if not case.relations]


def sample():
    rng = np.random.default_rng(0)
    s, t = (2 * rng.normal(size=(B, T, C)).astype(np.float32) for _ in range(2))
    labels = rng.integers(0, C, (B, T)).astype(np.int32)
    weights = rng.uniform(0.5, 2, (B, T)).astype(np.float32)
    s[0, 1], labels[1, 2], weights[0, 1] = np.nan, -100, 0
    return tuple(map(jnp.asarray, (s, t, labels, weights)))


def folded(x):
    return x.reshape(-1, *x.shape[2:])


@functools.cache
def on_one_device(case):
    """Value and gradient of the tokens, and of the same tokens as examples."""
    loss = jax.value_and_grad(case.call)
    both = jax.jit(lambda *inputs: (loss(*inputs), loss(*map(folded, inputs))))
    return both(*sample())


@every_third(ON_LOGITS, 0)
def test_tokens_are_examples(case):
    (value, slope), (expected, slopes) = on_one_device(case)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(folded(slope), slopes, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(slope[0, 1], 0)


def on_meshes():
    """Every third loss on an explicit mesh, and every ninth one on an automatic one."""
    for kind, of in ((AxisType.Auto, 9), (AxisType.Explicit, 3)):
        for i, case in enumerate(ON_LOGITS):
            marks = [pytest.mark.slow] if i % of else []
            yield pytest.param(case, kind, marks=marks, id=f"{case.name}-{kind.name}")


@pytest.mark.parametrize(("case", "kind"), list(on_meshes()))
def test_tokens_on_a_mesh(case, kind):
    inputs = sample()
    expected, _ = on_one_device(case)
    mesh = jax.make_mesh((2, 3), ("data", "model"), (kind,) * 2)

    def put(x):
        spec = P("data", None, "model") if x.ndim == 3 else P("data", None)
        return jax.device_put(x, NamedSharding(mesh, spec))

    with jax.set_mesh(mesh):
        got = jax.jit(jax.value_and_grad(case.call))(*map(put, inputs))
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-5)


@every_third(SUMS, 1)
def test_denominators(case):
    s, t, labels, weights = sample()
    labels = jnp.maximum(labels, 0)
    call = functools.partial(case.call, s, t, labels, weights)
    each = C if case.name.startswith("binary") else 1
    mask = (weights > 0).astype(jnp.float32)
    by = {
        "mean": ("mean", each * jnp.sum(weights)),
        "count": ("count", each * jnp.sum(mask)),
        "number": (7, 7),
        "array": (jnp.int32(11), 11),
    }
    # Without weights everything counts once.
    whole = functools.partial(case.call, t, t[::-1], labels, None)

    @jax.jit
    def values():
        weighted = {name: call(denominator=d) for name, (d, _) in by.items()}
        plain = [whole(denominator=d) for d in ("mean", "count", each * B * T)]
        zero = call(denominator=0 * weights[0, 0])
        return call(denominator=1), weighted, whole(), plain, zero

    total, weighted, expected, plain, zero = values()
    for name, (_, size) in by.items():
        np.testing.assert_allclose(weighted[name], total / size, 1e-5, err_msg=name)
    for value in plain:
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert zero == 0


@every_third(SUMS, 0)
def test_micro_batches_add_up(case):
    """Of five tokens and of six, divided by all eleven."""
    inputs, ((value, slope), _) = sample(), on_one_device(case)
    parts = [[x[:2] for x in inputs], [x[2:] for x in inputs]]
    one = jax.jit(jax.value_and_grad(functools.partial(case.call, denominator=1)))
    sums = [one(*part) for part in parts]
    ratio = (sums[0][0] + sums[1][0]) / value
    grads = jnp.concatenate([grad for _, grad in sums])
    np.testing.assert_allclose(grads, ratio * slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", SUMS, ids=lambda case: case.name)
def test_wrong_denominators_are_named(case):
    s, t, labels, weights = (jnp.nan_to_num(x) for x in sample())
    for wrong in ("sum", 0, -1.0, np.float32(0), jnp.ones(2)):
        loss = functools.partial(case.call, denominator=wrong)
        with pytest.raises(Exception, match="denominator"):
            jax.eval_shape(loss, s, t, labels, weights)


def test_weights_of_half():
    """A mean forgets them, a count does not."""
    s, _, labels, _ = sample()
    s, half = np.nan_to_num(s), np.full((B, T), 0.5, np.float32)
    call = functools.partial(losses.cross_entropy, s, np.maximum(labels, 0))

    @jax.jit
    def values():
        by_count = call(sample_weights=half, denominator="count")
        return call(), call(sample_weights=half), 2 * by_count

    expected, *others = values()
    np.testing.assert_allclose(others, [expected, expected], rtol=1e-6)


def test_ignored_labels():
    s, _, labels, _ = sample()
    s, labels = np.nan_to_num(s), np.asarray(labels)
    loss = jax.jit(losses.cross_entropy, static_argnames="ignore_label")
    mask = (labels != 2) & (labels >= 0)
    assert np.sum(labels == 2) > 0
    expected = loss(s, labels, sample_weights=mask)
    for label in (-100, -1, C, 255):
        moved = np.where(mask, labels, np.int32(label))
        np.testing.assert_allclose(loss(s, moved), expected, rtol=1e-6)
    value = loss(s, labels, ignore_label=2)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_weights_of_examples_for_tokens_are_named():
    s, t, _, weights = sample()
    for wrong, advice in (
        (weights[:, 0], "repeat it along the missing axes"),
        (weights[..., None], "squeeze it"),
        (s, "not classes"),
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
