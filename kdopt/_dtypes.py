"""The dtype in which sums are kept, whatever the dtype of what is summed."""

import jax
import jax.numpy as jnp


def accumulator_dtype(*arrays: jax.Array) -> jnp.dtype:
    """Returns the real dtype of sums: float32, or float64 if an array is as wide."""
    wide = any(array.dtype in (jnp.float64, jnp.complex128) for array in arrays)
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


def sum_dtype(*arrays: jax.Array) -> jnp.dtype:
    """Returns the dtype of elementwise sums: complex if an array is, else real."""
    dtype = accumulator_dtype(*arrays)
    if any(jnp.issubdtype(array.dtype, jnp.complexfloating) for array in arrays):
        return jnp.dtype(jnp.complex128 if dtype == jnp.float64 else jnp.complex64)
    return dtype


def at_least_float32(x: jax.Array) -> jax.Array:
    """Casts half precision (and integers) up; single and double precision stay."""
    return x.astype(sum_dtype(x))
