"""ViDT with golden parameters: sines in place of random numbers."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab.models.vidt import Vidt, VidtConfig, weights

GOLDEN = VidtConfig(
    32,
    (2, 2, 2, 2),
    (2, 4, 8, 16),
    window=4,
    width=64,
    neck_heads=4,
    neck_layers=2,
    ffn=128,
    dropout=0.0,
    num_tokens=20,
    num_classes=10,
)


def sines(shape, t, scale=1.0, mean=0.0):
    """``mean + scale sin(1.7 k + 0.9 t + 0.3)`` over entries k in C order."""
    k = np.arange(np.prod(shape, dtype=int), dtype=np.float64)
    return (mean + scale * np.sin(1.7 * k + 0.9 * t + 0.3)).reshape(shape)


def golden_tensors(shapes, offset=0):
    """Golden tensors of a checkpoint; ``offset`` makes another network of them."""
    tensors = {}
    for t, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        if name.endswith("sampling_offsets.bias"):
            scale, mean = 2.0, 0.0
        elif len(shape) == 1:
            scale, mean = 0.1, float(name.endswith(".weight"))
        elif name.endswith(("det_token", "det_pos_embed", "bias_table")):
            scale, mean = 0.5, 0.0
        else:
            scale, mean = math.sqrt(2 / math.prod(shape[1:])), 0.0
        tensors[name] = sines(shape, t + offset, scale, mean)
    return tensors


def golden_vidt(embed=32, offset=0, dtype=jnp.float64):
    """A tiny ViDT with golden parameters."""
    config = dataclasses.replace(GOLDEN, embed=embed)
    model = nnx.eval_shape(lambda: Vidt(config, rngs=nnx.Rngs(0), param_dtype=dtype))
    tensors = golden_tensors(weights.shapes(model), offset)
    return nnx.merge(nnx.graphdef(model), weights.from_torch(model, tensors))


def golden_batch(dtype=np.float64):
    """Two images, the second one padded, and their mask."""
    images = sines((2, 3, 96, 80), 200).transpose(0, 2, 3, 1).astype(dtype)
    mask = np.zeros((2, 96, 80), bool)
    mask[1, 80:], mask[1, :, 64:] = True, True
    return np.where(mask[..., None], 0, images).astype(dtype), mask
