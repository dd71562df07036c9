"""Random keys in a state, as raw data that any checkpoint can store."""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

StartKey = Callable[[Any], jax.Array]
NextKey = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


def check_key(key: Any, user: str) -> jax.Array:
    """Checks that a random method was given a key."""
    dtype = getattr(key, "dtype", None)
    new = dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)
    if not (new and key.ndim == 0) and not (dtype == jnp.uint32 and key.ndim == 1):
        raise ValueError(f"{user} is random: pass key=jax.random.key(0), got {key!r}.")
    return key


def carry_key(key: Any, user: str) -> tuple[StartKey, NextKey]:
    """Prepares a key to be carried from step to step.

    Args:
        key: A random key, typed or raw.
        user: Name of the method.

    Returns:
        A function from parameters to the initial key data, and one from key data to the
        next key data and a key to use now. Groups of parameters, such as those of
        :func:`kdopt.partition`, start with different keys.

    Raises:
        ValueError: If it is not a key.
    """
    impl = jax.random.key_impl(check_key(key, user))

    def start_key(params: Any) -> jax.Array:
        leaves = jax.tree_util.tree_leaves_with_path(params)
        paths = "".join(jax.tree_util.keystr(path) for path, _ in leaves)
        own = jax.random.fold_in(key, zlib.crc32(paths.encode()))
        return jnp.copy(jax.random.key_data(own))

    def next_key(data: jax.Array) -> tuple[jax.Array, jax.Array]:
        rest, use = jax.random.split(jax.random.wrap_key_data(data, impl=impl))
        return jax.random.key_data(rest), use

    return start_key, next_key
