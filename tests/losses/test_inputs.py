"""What losses accept for an array, and what they make of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import losses
from kdopt.losses._inputs import labelled_rows, logit_rows, vector_rows
from tests.losses._table import CASES

B, C = 4, 6
LABELS = jnp.arange(B)
MAPS = ((B, 5, 5, 3), (B, 3, 3, 3))


def integers(kind, rng):
    if kind == "maps":
        return tuple(rng.integers(-3, 4, shape) for shape in MAPS)
    return rng.integers(-3, 4, (B, C))


TABLE = {case.name: case for case in CASES if case.name != "crd"}


def of_other_kinds(case):
    """NumPy's integers, a list of labels, and truth values for weights."""
    rng = np.random.default_rng(0)
    s, t = (integers(case.kind, rng) for _ in range(2))
    return lambda: case.call(s, t, LABELS.tolist(), [True, True, False, True])


@pytest.mark.parametrize("name", TABLE)
def test_numpy_lists_and_integers_are_converted(name):
    value = jax.eval_shape(of_other_kinds(TABLE[name]))
    assert value.shape == () and value.dtype == jnp.float32


@pytest.mark.parametrize("name", ["dkd", "nd", "ofd"])
def test_what_is_converted_is_the_same(name):
    case, rng = TABLE[name], np.random.default_rng(0)
    as_floats = [
        jax.tree.map(lambda x: x.astype(np.float32), integers(case.kind, rng))
        for _ in range(2)
    ]
    weights = np.float32([1.0, 1.0, 0.0, 1.0])
    expected = jax.jit(case.call)(*as_floats, LABELS, weights)
    value = jax.jit(of_other_kinds(case))()
    np.testing.assert_allclose(value, expected, rtol=1e-6)


PER_EXAMPLE = {
    "kd": losses.kd,
    "kd_standardized": losses.kd_standardized,
    "binary_kd": losses.binary_kd,
    "soft_distance": lambda s, t, temperature: losses.soft_distance(
        s, t, tau_student=temperature, tau_teacher=2 * temperature
    ),
}


@pytest.mark.parametrize("name", PER_EXAMPLE)
def test_a_temperature_an_example(name, x64):
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(2, B, C))
    tau = np.array([[1.0], [2.0], [4.0], [0.5]])
    loss = jax.jit(lambda s, t, tau: PER_EXAMPLE[name](s, t, temperature=tau))
    alone = [loss(s[i : i + 1], t[i : i + 1], tau[i, 0]) for i in range(B)]
    value = loss(s, t, tau)
    assert value.shape == ()
    np.testing.assert_allclose(value, np.mean(alone), rtol=1e-10)


def test_a_temperature_an_example_where_examples_are_compared():
    x = jnp.ones((B, C))
    with pytest.raises(ValueError, match="one number here"):
        jax.eval_shape(lambda tau: losses.dist(x, x, temperature=tau), x[:, :1])


def test_rows_are_cleared_and_the_teacher_is_stopped():
    s = jnp.array([[1.0, 1.0], [np.nan, np.nan], [np.nan, np.nan]])
    student, _, weights = logit_rows(s, s, [2, 0, -1])
    np.testing.assert_array_equal(student, [[1, 1], [0, 0], [0, 0]])
    np.testing.assert_array_equal(weights, [2, 0, 0])
    labels, weights, rows = labelled_rows([1, 1, 7], None, 2, student)
    np.testing.assert_array_equal(labels, [1, 1, 0])
    np.testing.assert_array_equal(weights, [1, 1, 0])
    assert rows.dtype == jnp.float32

    def total(x, **options):
        return jnp.sum(vector_rows(x, x, None, **options)[1])

    x = jnp.ones((2, 3))
    assert not np.any(jax.jit(jax.grad(total))(x))
    trained = functools.partial(total, teacher_gradient=True)
    np.testing.assert_array_equal(jax.jit(jax.grad(trained))(x), 1)


def test_both_are_as_wide_as_the_wider(x64):
    student, teacher = jnp.ones((2, 3), jnp.bfloat16), jnp.ones((2, 3), jnp.float64)
    for x in logit_rows(student, teacher, None)[:2]:
        assert x.dtype == jnp.float64
