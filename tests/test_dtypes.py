"""Sums are kept in float32 or wider."""

import jax.numpy as jnp
import pytest

from kdopt._dtypes import accumulator_dtype, at_least_float32


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ((), "float32"),
        (("float16",), "float32"),
        (("bfloat16", "float32"), "float32"),
        (("bfloat16", "float64"), "float64"),
        (("int32",), "float32"),
    ],
)
def test_accumulator_dtype(x64, dtypes, expected):
    assert accumulator_dtype(*(jnp.zeros(1, d) for d in dtypes)) == expected


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "float32"])
def test_at_least_float32(dtype):
    assert at_least_float32(jnp.ones(2, dtype)).dtype == jnp.float32
