"""Arrays for benchmarks, described by shape until programs are compiled."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Shapes = list[tuple[int, ...]]

_LARGE = 2**22


def struct(shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """Describes an array by shape and dtype."""
    return jax.ShapeDtypeStruct(shape, dtype)


def abstract(tree: Any) -> Any:
    """Returns the shapes and dtypes of a tree."""
    return jax.tree.map(lambda leaf: struct(leaf.shape, leaf.dtype), tree)


def size_of(tree: Any) -> float:
    """Returns the bytes of a tree."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _normal(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return jax.random.normal(key, shape, jnp.float32).astype(dtype)


def noise(tree: Any, seed: int = 0, scale: float = 1.0) -> Any:
    """Draws normal noise for every leaf; large ones on the device."""
    rng = np.random.default_rng(seed)
    keys = iter(jax.random.split(jax.random.key(seed), 1 + len(jax.tree.leaves(tree))))

    def leaf(like: Any) -> jax.Array:
        key = next(keys)
        if not jnp.issubdtype(like.dtype, jnp.floating):
            return jnp.asarray(rng.integers(0, 10, like.shape), like.dtype)
        if math.prod(like.shape) >= _LARGE:
            return scale * _normal(key, tuple(like.shape), like.dtype)
        values = scale * rng.standard_normal(like.shape, np.float32)
        return jnp.asarray(values.astype(like.dtype))

    return jax.tree.map(leaf, tree)


def initial(tree: Any) -> Any:
    """Makes initial values of a network on the host, by shape and name.

    Kernels are He-normal and scales 1; the network's own initialisers would compile a
    program for each shape.
    """
    rng = np.random.default_rng(0)

    def leaf(path: Any, like: Any) -> np.ndarray:
        if len(like.shape) > 1:
            width = math.sqrt(2 / math.prod(like.shape[:-1]))
            values = width * rng.standard_normal(like.shape, np.float32)
        else:
            one = any(word in jax.tree_util.keystr(path) for word in ("scale", "var"))
            values = np.full(like.shape, float(one), np.float32)
        return values.astype(like.dtype)

    return jax.tree_util.tree_map_with_path(leaf, tree)
