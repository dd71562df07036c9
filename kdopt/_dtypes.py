"""Dtypes for sums: at least float32, whatever the dtype of the terms."""

from typing import Any

import jax
import jax.numpy as jnp


def accumulator_dtype(*arrays: jax.Array) -> jnp.dtype:
    """Returns float32, or float64 if an array has it.

    Raises:
        TypeError: If an array is complex. The inner product of complex gradients
            depends on convention, and many methods compare signs.
    """
    for array in arrays:
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise TypeError(
                f"Arrays must be real, got one of dtype {array.dtype}: complex numbers "
                "are not supported. Keep real and imaginary parts as two parameters "
                "and join them in the forward pass, jax.lax.complex(real, imag)."
            )
    wide = any(array.dtype == jnp.float64 for array in arrays)
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


def at_least_float32(x: jax.Array) -> jax.Array:
    """Casts half precision and integers to float32; float32 and float64 stay."""
    return x.astype(accumulator_dtype(x))


def wide_zeros(tree: Any) -> Any:
    """Returns zeros shaped like a tree, in at least float32."""
    return jax.tree.map(
        lambda x: jnp.zeros_like(at_least_float32(jnp.asarray(x))), tree
    )
