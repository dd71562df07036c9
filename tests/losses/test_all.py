"""What holds for every loss: finite, masked, one-sided, at full precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests._precision import loose_products
from tests._turns import every_third, in_turn
from tests.losses._table import CASES

BATCH = 6
LABELS = jnp.array([3, 1, 0, 2, 3, 1])


@functools.cache
def differentiated(case):
    """Value and both gradients, compiled once a shape."""
    return jax.jit(jax.value_and_grad(case.call, argnums=(0, 1)))


def sample(kind, seed):
    rng = np.random.default_rng(seed)
    if kind == "logits":
        return jnp.asarray(2 * rng.normal(size=(BATCH, 4)), jnp.float32)
    if kind == "vectors":
        return jnp.asarray(rng.normal(size=(BATCH, 5)), jnp.float32)
    shapes = [(BATCH, 5, 5, 3), (BATCH, 3, 3, 3)]
    return tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)


def edges(kind):
    """Pairs at which a careless formula divides by 0 or overflows."""
    s, t = sample(kind, 0), sample(kind, 1)

    def scaled(x, c):
        return jax.tree.map(lambda leaf: leaf * c, x)

    yield "zero student", scaled(s, 0), t
    yield "zero teacher", s, scaled(t, 0)
    yield "both zero", scaled(s, 0), scaled(t, 0)
    yield "equal", s, s
    yield "opposite", s, scaled(s, -1)
    yield "huge", scaled(s, 1e4), scaled(t, 1e4)
    yield "tiny", scaled(s, 1e-25), scaled(t, 1e-25)
    yield (
        "equal rows",
        *(jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), x) for x in (s, t)),
    )
    yield (
        "constant",
        *(jax.tree.map(lambda x: jnp.full_like(x, 0.1), x) for x in (s, t)),
    )
    if kind == "logits":
        one_hot = 1e4 * jax.nn.one_hot(LABELS, 4)
        yield "right teacher", s, one_hot
        yield "wrong teacher", one_hot, 1e4 * jax.nn.one_hot((LABELS + 1) % 4, 4)


def assert_finite(tree, message):
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(np.asarray(leaf, np.float64)).all(), message


@pytest.fixture(params=in_turn(CASES, 0, of=2), ids=lambda case: case.name)
def case(request):
    return request.param


def test_finite_on_the_edges(case):
    for name, s, t in edges(case.kind):
        value, grads = differentiated(case)(s, t, LABELS, jnp.ones(BATCH))
        assert_finite((value, grads), name)


def test_teacher_gets_no_gradient_and_the_student_does(case):
    s, t = sample(case.kind, 0), sample(case.kind, 1)
    _, (student, teacher) = differentiated(case)(s, t, LABELS, jnp.ones(BATCH))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(teacher))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(student))


def test_weight_counts_rows(case):
    """Weight 0 is the row left out, weight 2 the row twice."""
    s, t = sample(case.kind, 0), sample(case.kind, 1)
    rows = np.array([0, 1, 1, 2, 5, 5])
    weights = jnp.array([1.0, 2, 1, 0, 0, 2])
    pick = functools.partial(jax.tree.map, lambda x: x[rows])
    value, (grads, _) = differentiated(case)(s, t, LABELS, weights)
    expected, (per_copy, _) = differentiated(case)(
        pick(s), pick(t), LABELS[rows], jnp.ones(BATCH)
    )
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=1e-6)
    for ours, copies in zip(
        jax.tree.leaves(grads), jax.tree.leaves(per_copy), strict=True
    ):
        summed = jnp.zeros_like(ours).at[rows].add(copies)
        np.testing.assert_allclose(ours, summed, rtol=1e-3, atol=1e-5)


GARBAGE = {
    "nan": jnp.nan,
    "inf": jnp.inf,
    "-inf": -jnp.inf,
    "huge": 3e38,
    "zero": 0.0,
}


def test_masked_rows_may_hold_anything(case):
    """Value and gradient are those of the other rows; what is masked gets exactly 0."""
    s, t = sample(case.kind, 0), sample(case.kind, 1)
    weights = jnp.array([1.0, 1, 1, 1, 0, 0])
    # `test_weight_counts_rows` shows that these are those of the first four rows.
    expected, slopes = differentiated(case)(s, t, LABELS, weights)
    for (name, garbage), label in zip(
        GARBAGE.items(), (-1, 4, -100, 255, 2**31 - 1), strict=True
    ):
        spoilt = functools.partial(jax.tree.map, lambda x, g=garbage: x.at[4:].set(g))
        value, grads = differentiated(case)(
            spoilt(s), spoilt(t), LABELS.at[4:].set(label), weights
        )
        np.testing.assert_allclose(value, expected, rtol=1e-6, err_msg=name)
        for ours, theirs in zip(
            jax.tree.leaves(grads), jax.tree.leaves(slopes), strict=True
        ):
            np.testing.assert_allclose(ours[:4], theirs[:4], rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(ours[4:], 0, err_msg=name)


def test_everything_masked_is_zero(case):
    s, t = sample(case.kind, 0), sample(case.kind, 1)
    for weights in (jnp.zeros(BATCH), -jnp.ones(BATCH)):
        value, grads = differentiated(case)(s, t, LABELS, weights)
        assert value == 0
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_negative_weight_is_none_and_nan_is_seen(case):
    s, t = sample(case.kind, 0), sample(case.kind, 1)
    weights = jnp.array([1.0, 1, 1, 1, 0, 0])
    expected, _ = differentiated(case)(s, t, LABELS, weights)
    value, _ = differentiated(case)(s, t, LABELS, weights.at[4].set(-2))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    value, _ = differentiated(case)(s, t, LABELS, weights.at[4].set(jnp.nan))
    assert np.isnan(value)


@every_third(CASES, 0)
def test_half_precision_is_reduced_in_single(case):
    s, t = (
        jax.tree.map(lambda x: x.astype(jnp.bfloat16), sample(case.kind, seed))
        for seed in (0, 1)
    )
    value = jax.jit(case.call)(s, t, LABELS, jnp.ones(BATCH))
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (s, t))
    expected, _ = differentiated(case)(*wide, LABELS, jnp.ones(BATCH))
    assert value.dtype == jnp.float32
    # One step of bfloat16 is 2^-8: a reduction in it would be further off.
    np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-5)


def test_products_are_at_full_precision(case):
    s, t = sample(case.kind, 0), sample(case.kind, 1)
    fn = jax.value_and_grad(case.call, argnums=(0, 1))
    assert loose_products(fn, s, t, LABELS, jnp.ones(BATCH)) == []
