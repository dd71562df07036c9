"""Products and solutions of small matrices, against numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import _linalg
from tests import _samplers
from tests._precision import loose_products

pytestmark = pytest.mark.usefixtures("x64")

ROWS = _samplers.generic(0, 4)
GRAM, VECTOR = ROWS @ ROWS.T, _samplers.values(0, 4)


@pytest.mark.parametrize(
    ("x", "y"), [(GRAM, GRAM), (GRAM, VECTOR), (VECTOR, GRAM), (VECTOR, VECTOR)]
)
def test_dot(x, y):
    np.testing.assert_allclose(_linalg.dot(jnp.array(x), jnp.array(y)), x @ y)


def test_quadratic_form():
    got = _linalg.quadratic_form(jnp.array(GRAM), jnp.array(VECTOR))
    np.testing.assert_allclose(got, np.sum((VECTOR @ ROWS) ** 2))


def test_solve():
    got = _linalg.solve(jnp.array(GRAM), jnp.array(VECTOR))
    np.testing.assert_allclose(GRAM @ got, VECTOR)


def test_eigh():
    values, vectors = map(np.asarray, _linalg.eigh(jnp.array(GRAM)))
    assert np.all(np.diff(values) >= 0)
    np.testing.assert_allclose(vectors * values @ vectors.T, GRAM)


@pytest.mark.parametrize(
    ("fn", "args"),
    [
        (_linalg.dot, (GRAM, VECTOR)),
        (_linalg.quadratic_form, (GRAM, VECTOR)),
        (_linalg.solve, (GRAM, VECTOR)),
        (_linalg.eigh, (GRAM,)),
    ],
)
def test_full_precision(fn, args):
    assert loose_products(fn, *args) == []
