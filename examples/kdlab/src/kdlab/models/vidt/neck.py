"""The neck: deformable decoder layers, each of which refines the boxes."""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from kdlab.models._batch_norm import widen
from kdlab.models._blocks import Layers
from kdlab.models.vidt.config import VidtConfig
from kdlab.models.vidt.deformable import DeformableAttention
from kdlab.models.vidt.heads import BoxHead, logit
from kdlab.models.vidt.layers import dropout, group_norm, layer_norm, xavier
from kdlab.models.vidt.masks import valid_ratios
from kdlab.models.vidt.outputs import Detections, NeckInput
from kdlab.models.vidt.windows import attend


class Projection(nnx.Module):
    """A linear layer and a GroupNorm over all positions of an image, padding too."""

    def __init__(self, inputs: int, outputs: int, *, layers: Layers):
        layers = dataclasses.replace(
            layers, linear_init=xavier, bias_init=nnx.initializers.zeros
        )
        self.linear = layers.linear(inputs, outputs)
        self.norm = group_norm(outputs, layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Projects ``[b, ..., d]``."""
        return self.norm(self.linear(x))


class SelfAttention(nnx.Module):
    """Attention of the tokens to each other; their values have no positions.

    Args:
        width: Number of channels.
        heads: Number of heads.
        layers: Factory of the layers.
    """

    def __init__(self, width: int, heads: int, *, layers: Layers):
        self.heads = heads
        layers = dataclasses.replace(
            layers, linear_init=xavier, bias_init=nnx.initializers.zeros
        )
        self.in_proj = layers.linear(width, 3 * width)
        self.out_proj = layers.linear(width, width)

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        rate: float,
        key: jax.Array | None,
    ) -> jax.Array:
        """Attends; ``[b, n, d]``, with dropout of the weights."""
        shape = *tokens.shape[:2], 3, self.heads, -1
        placed = self.in_proj(tokens + positions).reshape(shape)
        plain = self.in_proj(tokens).reshape(shape)
        q, k, v = placed[:, :, 0], placed[:, :, 1], plain[:, :, 2]
        return self.out_proj(attend(q, k, v, rate=rate, key=key))


class Memory(NamedTuple):
    """The maps as the layers of the neck read them.

    Attributes:
        values: The flattened maps from fine to coarse, ``[b, s, d]``.
        mask: True at padding, ``[b, s]`` bool.
        sizes: ``(h, w)`` of each map.
        valid: Fractions ``(width, height)`` that are not padding, ``[b, levels, 2]``.
    """

    values: jax.Array
    mask: jax.Array
    sizes: tuple[tuple[int, int], ...]
    valid: jax.Array

    @classmethod
    def of(cls, neck: NeckInput, dtype: DTypeLike) -> "Memory":
        """Flattens the maps."""
        b, *_, d = neck.scales[0].shape
        return cls(
            jnp.concatenate([x.reshape(b, -1, d) for x in neck.scales], 1),
            jnp.concatenate([mask.reshape(b, -1) for mask in neck.masks], 1),
            tuple((x.shape[1], x.shape[2]) for x in neck.scales),
            jnp.stack([valid_ratios(mask, dtype) for mask in neck.masks], 1),
        )


class DecoderLayer(nnx.Module):
    """Self-attention, deformable attention and a feed-forward network, post-norm.

    Args:
        config: The architecture.
        layers: Factory of the layers.
    """

    def __init__(self, config: VidtConfig, *, layers: Layers):
        width, self.rate = config.width, config.dropout
        self.self_attn = SelfAttention(width, config.neck_heads, layers=layers)
        self.cross_attn = DeformableAttention(
            width, config.neck_heads, 4, config.points, layers=layers
        )
        layers = dataclasses.replace(layers, linear_init=xavier)
        self.linear1 = layers.linear(width, config.ffn)
        self.linear2 = layers.linear(config.ffn, width)
        self.norm1, self.norm2, self.norm3 = (
            layer_norm(width, layers) for _ in range(3)
        )

    def __call__(
        self,
        tokens: jax.Array,
        boxes: jax.Array,
        key: jax.Array | None,
        *,
        positions: jax.Array,
        memory: Memory,
    ) -> jax.Array:
        """Transforms the tokens.

        Args:
            tokens: ``[b, n, d]``.
            boxes: What the offsets are relative to, in units of the unpadded image,
                ``[b, n, 4]``.
            key: Random key of dropout; None: nothing is dropped.
            positions: Positions of the tokens, ``[b, n, d]``.
            memory: The maps.
        """
        keys = [None] * 5 if key is None else jax.random.split(key, 5)

        def add(x: jax.Array, i: int) -> jax.Array:
            return tokens + dropout(x, self.rate, keys[i])

        attended = self.self_attn(tokens, positions, self.rate, keys[0])
        tokens = self.norm2(add(attended, 1))
        # Boxes are fractions of the image, locations fractions of the padded maps.
        valid = jnp.concatenate([memory.valid, memory.valid], -1)
        references = boxes[:, :, None] * valid[:, None]
        sampled = self.cross_attn(
            tokens + positions, references, memory.values, memory.sizes, memory.mask
        )
        tokens = self.norm1(add(sampled, 2))
        hidden = dropout(nnx.relu(self.linear1(tokens)), self.rate, keys[3])
        return self.norm3(add(self.linear2(hidden), 4))


class Neck(nnx.Module):
    """Decoder layers without an encoder, each of which refines the boxes before it.

    Level 0 predicts from the tokens of the body. The boxes of a level are the
    references of the next layer and are refined by its head, but no gradient passes
    from a level to the boxes of the one before.

    Args:
        config: The architecture.
        layers: Factory of the layers.
        remat: Whether backward passes compute the layers again.
    """

    def __init__(self, config: VidtConfig, *, layers: Layers, remat: bool = False):
        width, self.remat = config.width, remat
        self.layers = nnx.List(
            [DecoderLayer(config, layers=layers) for _ in range(config.neck_layers)]
        )
        # Boxes need more than the eight bits of bfloat16, and cost little.
        dtype = widen(layers.dtype or layers.param_dtype)
        layers = dataclasses.replace(layers, dtype=dtype)
        rare = nnx.initializers.constant(-math.log(99))  # a score of 0.01
        classes = dataclasses.replace(layers, bias_init=rare)
        points = dataclasses.replace(layers, linear_init=xavier)
        self.reference_points = points.linear(width, 2)
        self.class_embed = nnx.List(
            [
                classes.linear(width, config.num_classes)
                for _ in range(config.num_levels)
            ]
        )
        self.bbox_embed = nnx.List(
            [
                BoxHead(width, 0.0 if level else -2.0, layers=layers)
                for level in range(config.num_levels)
            ]
        )

    def __call__(self, neck: NeckInput, *, key: jax.Array | None = None) -> Detections:
        """Predicts at every level; see :meth:`Vidt.decode`."""
        reference = logit(nnx.sigmoid(self.reference_points(neck.positions)))
        reference = jnp.pad(reference, ((0, 0), (0, 0), (0, 2)))
        memory = Memory.of(neck, reference.dtype)
        keys = [None] * len(self.layers)
        if key is not None:
            keys = list(jax.random.split(key, len(self.layers)))
        tokens, levels = neck.det, []
        for i, (classify, change) in enumerate(
            zip(self.class_embed, self.bbox_embed, strict=True)
        ):
            if i > 0:
                boxes = jax.lax.stop_gradient(levels[-1][1])
                run = functools.partial(
                    self.layers[i - 1], positions=neck.positions, memory=memory
                )
                run = jax.checkpoint(run) if self.remat else run
                tokens = run(tokens, boxes, keys[i - 1])
                reference = logit(boxes)
            boxes = nnx.sigmoid(change(tokens) + reference)
            levels.append((classify(tokens), boxes, tokens))
        logits, boxes, neck_det = map(jnp.stack, zip(*levels, strict=True))
        return Detections(logits, boxes, neck.scales, neck.det, neck_det)
