"""Multi-scale deformable attention, in gathers."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from kdlab.models._blocks import Layers
from kdlab.models.vidt.layers import xavier


def sample_scales(
    values: jax.Array,
    sizes: Sequence[tuple[int, int]],
    locations: jax.Array,
    weights: jax.Array,
) -> jax.Array:
    r"""Sums bilinear samples of several maps.

    .. math::
        y_{qh} = \sum_{l, p} a_{qhlp}\,
        v_{hl}(W_l\,x_{qhlp} - \tfrac12,\; H_l\,y_{qhlp} - \tfrac12)

    Pixel centres are at half-integers, so locations 0 and 1 are the borders of a map.
    Neighbours outside it count as 0; locations are not clipped.

    Args:
        values: The flattened maps one after another, ``[b, s, heads, e]``.
        sizes: ``(h, w)`` of each map.
        locations: ``(x, y)`` in units of the map, ``[b, q, heads, levels, points, 2]``.
        weights: ``[b, q, heads, levels, points]``.

    Returns:
        ``[b, q, heads, e]``.

    Examples:
        The centre of a map of two pixels is the mean of both:

        >>> import jax.numpy as jnp
        >>> values = jnp.array([1.0, 5.0]).reshape(1, 2, 1, 1)
        >>> locations = jnp.full((1, 1, 1, 1, 1, 2), 0.5)
        >>> sample_scales(values, [(1, 2)], locations, jnp.ones((1, 1, 1, 1, 1))).item()
        3.0

    References:
        Zhu et al., `Deformable DETR <https://arxiv.org/abs/2010.04159>`_, ICLR 2021,
        Eq. 3
    """
    b, q, heads, levels, points, _ = locations.shape
    sides = np.array([(w, h) for h, w in sizes])
    starts = np.cumsum([0, *sides.prod(1)[:-1]])
    # Along the axes [b, q, heads, levels, points, corners, xy].
    sides = jnp.asarray(sides.reshape(1, 1, 1, levels, 1, 1, 2), locations.dtype)
    corners = np.array([(0, 0), (1, 0), (0, 1), (1, 1)]).reshape(1, 1, 1, 1, 1, 4, 2)
    places = locations[..., None, :] * sides - 0.5
    first = jnp.floor(places)
    fractions = places - first
    shares = jnp.where(corners == 1, fractions, 1 - fractions)
    pixels = first + corners.astype(first.dtype)
    inside = (pixels >= 0) & (pixels < sides)
    weights = weights[..., None] * jnp.where(inside, shares, 0).prod(-1)
    column, row = jnp.moveaxis(jnp.clip(pixels, 0, sides - 1).astype(int), -1, 0)
    widths = np.array([w for _, w in sizes]).reshape(1, 1, 1, levels, 1, 1)
    index = starts.reshape(widths.shape) + row * widths + column

    def by_head(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(b, q, heads, levels * points * 4), 1, 2)

    def gather(values: jax.Array, index: jax.Array) -> jax.Array:
        # Clipped, since a location that is not finite becomes any integer.
        return values.at[index].get(mode="clip")

    samples = jax.vmap(jax.vmap(gather, (1, 0)))(values, by_head(index))
    return jnp.einsum(
        "bhqse,bhqs->bqhe", samples, by_head(weights).astype(values.dtype)
    )


def _directions(heads: int, levels: int, points: int):
    """Makes the first bias of the offsets: each head looks in its own direction."""

    def init(key: jax.Array, shape: Sequence[int], dtype: DTypeLike) -> jax.Array:
        del key, shape
        angles = 2 * math.pi * np.arange(heads) / heads
        step = np.stack([np.cos(angles), np.sin(angles)], -1)
        step /= np.abs(step).max(-1, keepdims=True)
        offsets = step[:, None, None] * np.arange(1, points + 1)[:, None]
        shape = (heads, levels, points, 2)
        return jnp.asarray(np.broadcast_to(offsets, shape).ravel(), dtype)

    return init


class DeformableAttention(nnx.Module):
    """Attention to a few points around a reference, at all scales.

    Args:
        width: Number of channels.
        heads: Number of heads.
        levels: Number of maps.
        points: Number of points for each head and map.
        layers: Factory of the layers.
    """

    def __init__(
        self, width: int, heads: int, levels: int, points: int, *, layers: Layers
    ):
        self.shape = heads, levels, points
        zeros = nnx.initializers.zeros
        plain = dataclasses.replace(layers, linear_init=xavier, bias_init=zeros)
        still = dataclasses.replace(plain, linear_init=zeros)
        turned = dataclasses.replace(still, bias_init=_directions(*self.shape))
        self.sampling_offsets = turned.linear(width, heads * levels * points * 2)
        self.attention_weights = still.linear(width, heads * levels * points)
        self.value_proj = plain.linear(width, width)
        self.output_proj = plain.linear(width, width)

    def __call__(
        self,
        queries: jax.Array,
        references: jax.Array,
        memory: jax.Array,
        sizes: Sequence[tuple[int, int]],
        mask: jax.Array,
    ) -> jax.Array:
        """Attends.

        Args:
            queries: ``[b, q, d]``.
            references: Points ``(x, y)`` or boxes ``(x, y, width, height)`` in units of
                each map, ``[b, q, levels, 2 or 4]``. Offsets are in pixels around a
                point; from a box, ``points`` reach half its side.
            memory: The flattened maps one after another, ``[b, s, d]``.
            sizes: ``(h, w)`` of each map.
            mask: True at padding, whose values are zero, ``[b, s]`` bool.

        Returns:
            ``[b, q, d]``.
        """
        heads, levels, points = self.shape
        b, q, _ = queries.shape
        wide = references.dtype
        values = jnp.where(mask[:, :, None], 0, self.value_proj(memory))
        values = values.reshape(b, memory.shape[1], heads, -1)
        offsets = self.sampling_offsets(queries).astype(wide)
        offsets = offsets.reshape(b, q, heads, levels, points, 2)
        logits = self.attention_weights(queries).astype(wide)
        weights = jax.nn.softmax(logits.reshape(b, q, heads, -1))
        around = references[:, :, None, :, None]
        if references.shape[-1] == 4:
            scale = around[..., 2:] * (0.5 / points)
        else:
            scale = 1 / np.array(sizes)[:, None, ::-1]
            scale = jnp.asarray(scale, wide).reshape(1, 1, 1, levels, 1, 2)
        sampled = sample_scales(
            values,
            sizes,
            around[..., :2] + offsets * scale,
            weights.reshape(offsets.shape[:-1]),
        )
        return self.output_proj(sampled.reshape(b, q, -1))
