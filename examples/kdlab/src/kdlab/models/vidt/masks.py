"""Padding masks and the sine positions that follow from them; True is padding."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


def resize_mask(mask: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes a mask to the nearest neighbour above and to the left.

    Row ``i`` of ``h`` comes from row ``floor(i H / h)`` of ``H``.

    Args:
        mask: ``[b, H, W]`` bool.
        size: ``(h, w)``.

    Returns:
        ``[b, h, w]`` bool.

    Examples:
        >>> import jax.numpy as jnp
        >>> mask = jnp.arange(5)[None, None] >= 3
        >>> resize_mask(mask, (1, 2)).tolist()
        [[[False, False]]]
    """
    rows, columns = (
        np.arange(new) * old // new
        for new, old in zip(size, mask.shape[1:], strict=True)
    )
    return mask[:, rows][:, :, columns]


def resize_mask_for_body(mask: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes the mask of the images to the last stage of the body, as ViDT does.

    It is resized to an eighth of the patches, rounded down, and then once more where
    the stage is larger because odd sizes are rounded up. So it may differ by a patch
    from a mask that is resized at once.

    Args:
        mask: ``[b, H, W]`` bool.
        size: Size of the last stage.

    Returns:
        ``[b, h, w]`` bool.
    """
    height, width = (math.ceil(side / 4) // 8 for side in mask.shape[1:])
    return resize_mask(resize_mask(mask, (max(height, 1), max(width, 1))), size)


def valid_ratios(mask: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Returns the fractions ``(width, height)`` of a map that are not padding.

    Args:
        mask: ``[b, h, w]`` bool.
        dtype: Dtype of the result.

    Returns:
        ``[b, 2]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> mask = jnp.zeros((1, 4, 4), bool).at[:, 3:].set(True)
        >>> print(valid_ratios(mask, jnp.float32))
        [[1.   0.75]]
    """
    there = ~mask
    return jnp.stack(
        [
            jnp.mean(there[:, 0], axis=1, dtype=dtype),
            jnp.mean(there[:, :, 0], axis=1, dtype=dtype),
        ],
        axis=1,
    )


def sine_positions(mask: jax.Array, width: int, dtype: DTypeLike) -> jax.Array:
    r"""Encodes the row and the column of each patch by sines and cosines.

    .. math::
        p_{2i} = \sin(2\pi\,y / 10000^{4i / d}), \qquad
        p_{2i+1} = \cos(2\pi\,y / 10000^{4i / d}), \qquad 2i + 1 < d / 2

    with the row :math:`y` as a fraction of the unpadded rows; the other half encodes
    the column.

    Args:
        mask: ``[b, h, w]`` bool.
        width: Number of channels ``d``, a multiple of 4.
        dtype: Dtype of the result.

    Returns:
        ``[b, h, w, d]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> x = sine_positions(jnp.zeros((1, 1, 2), bool), 4, jnp.float32)
        >>> print(x[0, 0].round(3))
        [[-0.  1.  0. -1.]
         [-0.  1. -0.  1.]]
    """
    half = width // 2
    periods = 10000.0 ** (4 * np.arange(half // 2) / width)
    there = (~mask).astype(dtype)
    encoded = []
    for axis in (1, 2):
        place = jnp.cumsum(there, axis)
        last = jax.lax.slice_in_dim(place, place.shape[axis] - 1, None, axis=axis)
        angles = (place / (last + 1e-6) * 2 * np.pi)[..., None] / jnp.asarray(
            periods, dtype
        ).reshape(1, 1, 1, -1)
        pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1)
        encoded.append(pairs.reshape(*mask.shape, half))
    return jnp.concatenate(encoded, -1)
