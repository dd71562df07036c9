"""Attention and the windows that Swin restricts it to."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from kdlab.models._batch_norm import widen
from kdlab.models.vidt.layers import dropout

OUT = -100.0
"""What Swin adds to the logit of a pair that should not attend."""


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *biases: jax.Array,
    rate: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    r"""Computes attention of several heads, with logits of at least float32.

    .. math:: \mathrm{softmax}(q k^\top / \sqrt{e} + \sum \mathrm{biases})\,v

    Args:
        q: Queries ``[..., q, heads, e]``.
        k: Keys ``[..., k, heads, e]``.
        v: Values ``[..., k, heads, e]``.
        *biases: What is added to the logits, each of a shape that broadcasts to
            ``[..., heads, q, k]``.
        rate: Dropout rate of the attention weights.
        key: Random key of dropout; None: nothing is dropped.

    Returns:
        ``[..., q, heads * e]``.
    """
    logits = jnp.einsum(
        "...qhe,...khe->...hqk",
        q / math.sqrt(q.shape[-1]),
        k,
        preferred_element_type=widen(q.dtype),
    )
    for bias in biases:
        logits += bias.astype(logits.dtype)
    weights = dropout(jax.nn.softmax(logits).astype(v.dtype), rate, key)
    out = jnp.einsum("...hqk,...khe->...qhe", weights, v)
    return out.reshape(*out.shape[:-2], -1)


def partition(x: jax.Array, window: int) -> jax.Array:
    """Cuts maps into windows, ``[b, h, w, d]`` to ``[b, windows, window^2, d]``."""
    b, h, w, d = x.shape
    x = x.reshape(b, h // window, window, w // window, window, d)
    return jnp.swapaxes(x, 2, 3).reshape(b, -1, window * window, d)


def join(x: jax.Array, window: int, size: tuple[int, int]) -> jax.Array:
    """Puts windows together again; the inverse of :func:`partition`."""
    h, w = size
    x = x.reshape(len(x), h // window, w // window, window, window, x.shape[-1])
    return jnp.swapaxes(x, 2, 3).reshape(len(x), h, w, x.shape[-1])


def relative_index(window: int) -> np.ndarray:
    """Returns the row of the bias table for each pair of patches in a window.

    Args:
        window: Side of the window.

    Returns:
        ``[window^2, window^2]`` integers below ``(2 window - 1)^2``.

    Examples:
        >>> relative_index(2)[0].tolist()
        [4, 3, 1, 0]
    """
    rows, columns = np.divmod(np.arange(window * window), window)
    down, right = (x[:, None] - x[None] + window - 1 for x in (rows, columns))
    return down * (2 * window - 1) + right


def shift_mask(size: tuple[int, int], window: int, shift: int) -> jax.Array:
    """Finds pairs of patches that are neighbours only since shifted maps wrap around.

    Args:
        size: Size of the maps, multiples of the window.
        window: Side of the windows.
        shift: By how much the maps are rolled up and left.

    Returns:
        ``[windows, window^2, window^2]`` bool, True where a pair should not attend.

    Examples:
        >>> shift_mask((4, 4), 4, 2).sum().item()
        192
    """

    def part(side: int) -> jax.Array:
        place = jnp.arange(side)
        return jnp.where(
            place < side - window, 0, jnp.where(place < side - shift, 1, 2)
        )

    rows, columns = map(part, size)
    region = 3 * rows[:, None] + columns[None]
    region = partition(region[None, :, :, None], window)[0, :, :, 0]
    return region[:, :, None] != region[:, None, :]
