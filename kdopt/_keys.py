"""Random keys in a state: raw data, which any checkpoint can hold."""

from collections.abc import Callable

import jax

NextKey = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


def carry_key(key: jax.Array) -> tuple[jax.Array, NextKey]:
    """Prepares a key to be carried from step to step.

    Returns:
        The data to start with, and a function from data to the next data and a key to
        use now.
    """
    impl = jax.random.key_impl(key)

    def next_key(data: jax.Array) -> tuple[jax.Array, jax.Array]:
        rest, use = jax.random.split(jax.random.wrap_key_data(data, impl=impl))
        return jax.random.key_data(rest), use

    return jax.random.key_data(key), next_key
