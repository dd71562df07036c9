"""A plain transformer: an image encoder like DeiT-S and a token decoder."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.accelerator._arrays import struct


class Size(NamedTuple):
    """Sizes of a network.

    Attributes:
        width: Width of the residual stream.
        depth: Number of blocks.
        heads: Number of heads.
        length: Number of tokens, without the class token.
        inputs: Numbers per patch, or size of the vocabulary.
        classes: Classes of an encoder; 0 makes a decoder, which predicts tokens.
    """

    width: int
    depth: int
    heads: int
    length: int
    inputs: int
    classes: int = 0


DEIT_S = Size(384, 12, 6, (224 // 16) ** 2, 16 * 16 * 3, 1000)
DECODER = Size(768, 12, 12, 1024, 32_000)


def parameters(size: Size) -> dict[str, Any]:
    """Returns parameter shapes, with stacked blocks, which compile far faster."""
    w = size.width

    def norm() -> dict[str, Any]:
        return {"scale": struct((w,)), "bias": struct((w,))}

    def dense(rows: int, columns: int) -> dict[str, Any]:
        return {"kernel": struct((rows, columns)), "bias": struct((columns,))}

    def block() -> dict[str, Any]:
        return {
            "norm1": norm(),
            "qkv": dense(w, 3 * w),
            "out": dense(w, w),
            "norm2": norm(),
            "up": dense(w, 4 * w),
            "down": dense(4 * w, w),
        }

    blocks = jax.tree.map(lambda x: struct((size.depth, *x.shape)), block())
    if size.classes:
        return {
            "embed": dense(size.inputs, w),
            "class": struct((1, w)),
            "position": struct((size.length + 1, w)),
            "blocks": blocks,
            "norm": norm(),
            "head": dense(w, size.classes),
        }
    return {
        "embed": struct((size.inputs, w)),
        "position": struct((size.length, w)),
        "blocks": blocks,
        "norm": norm(),
    }


def _norm(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    wide = jax.nn.standardize(wide, axis=-1, epsilon=1e-6)
    return (wide * p["scale"] + p["bias"]).astype(x.dtype)


def _dense(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ p["kernel"].astype(x.dtype) + p["bias"].astype(x.dtype)


def _block(p: dict[str, Any], x: jax.Array, heads: int, causal: bool) -> jax.Array:
    batch, length, width = x.shape
    parts = _dense(p["qkv"], _norm(p["norm1"], x))
    parts = parts.reshape(batch, length, 3, heads, width // heads)
    q, k, v = parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]
    mixed = jax.nn.dot_product_attention(q, k, v, is_causal=causal)
    x = x + _dense(p["out"], mixed.reshape(batch, length, width))
    hidden = jax.nn.gelu(_dense(p["up"], _norm(p["norm2"], x)))
    return x + _dense(p["down"], hidden)


def _blocks(size: Size, stacked: Any, x: jax.Array, *, causal: bool) -> jax.Array:
    block = functools.partial(_block, heads=size.heads, causal=causal)
    return jax.lax.scan(lambda x, p: (block(p, x), None), x, stacked)[0]


def encode_images(size: Size, params: Any, images: jax.Array) -> jax.Array:
    """Maps ``[b, h, w, 3]`` to logits ``[b, c]`` by the class token."""
    batch, side = len(images), round(size.length**0.5)
    patch = images.shape[1] // side
    grid = images.reshape(batch, side, patch, side, patch, 3)
    grid = grid.transpose(0, 1, 3, 2, 4, 5).reshape(batch, size.length, -1)
    x = _dense(params["embed"], grid)
    first = jnp.broadcast_to(params["class"].astype(x.dtype), (batch, 1, size.width))
    x = jnp.concatenate([first, x], 1) + params["position"].astype(x.dtype)
    x = _blocks(size, params["blocks"], x, causal=False)
    return _dense(params["head"], _norm(params["norm"], x[:, 0]))


def decode_tokens(size: Size, params: Any, tokens: jax.Array, dtype: Any) -> jax.Array:
    """Maps tokens ``[b, t]`` to logits of the next ones, ``[b, t, vocabulary]``."""
    embed = params["embed"].astype(dtype)
    x = embed[tokens] + params["position"].astype(dtype)
    x = _blocks(size, params["blocks"], x, causal=True)
    return _norm(params["norm"], x) @ embed.T
