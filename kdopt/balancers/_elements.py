"""Updates of buffers that skip elements whose new value is not finite."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

Buffers = Sequence[jax.Array]


def hold_together(
    new: Buffers, old: Buffers, update: jax.Array
) -> tuple[list[jax.Array], jax.Array]:
    """Keeps the old buffers of an element unless all the new ones are finite.

    For buffers that belong together: if each held its own, a first moment could move
    while the second, which divides it, stays. The update is NaN where they are held, so
    that the fault shows; where the update itself is not finite they are held too.

    Args:
        new: The new buffers of a leaf, in any dtype.
        old: The old ones, whose dtypes they take.
        update: The update of the leaf, in its own dtype.

    Returns:
        The buffers and the update.
    """
    cast = _cast(new, old)
    sound = functools.reduce(jnp.logical_and, map(jnp.isfinite, [*cast, update]))
    kept = [jnp.where(sound, n, o) for n, o in zip(cast, old, strict=True)]
    return kept, jnp.where(sound, update, jnp.nan)


def hold_apart(
    new: Buffers, old: Buffers, parts: Buffers, dtype: jnp.dtype
) -> tuple[list[jax.Array], jax.Array]:
    """Does the same for buffers whose contributions are only added: each holds its own.

    Each buffer then depends only on its own gradient: a compiler that computes each
    output separately, as for CPU, reads no other gradient for it.

    Args:
        new: The new buffers of a leaf, in any dtype.
        old: The old ones, whose dtypes they take.
        parts: What each buffer contributes to the update.
        dtype: Dtype of the update.

    Returns:
        The buffers and the update, NaN where a buffer is held or the sum not finite.
    """
    cast = _cast(new, old)
    update = functools.reduce(jnp.add, parts).astype(dtype)
    finite = [
        jnp.isfinite(n) & jnp.isfinite(part.astype(dtype))
        for n, part in zip(cast, parts, strict=True)
    ]
    kept = [jnp.where(ok, n, o) for ok, n, o in zip(finite, cast, old, strict=True)]
    sound = functools.reduce(jnp.logical_and, [*finite, jnp.isfinite(update)])
    return kept, jnp.where(sound, update, jnp.nan)


def _cast(new: Buffers, old: Buffers) -> list[jax.Array]:
    return [n.astype(o.dtype) for n, o in zip(new, old, strict=True)]
