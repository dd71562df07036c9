"""ViDT with golden parameters: sines in place of random numbers."""

import dataclasses
import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab.models.vidt import Vidt, VidtConfig, weights

FILES = Path(__file__).parent / "golden"

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
"""The network of the golden values."""

SMALLEST = dataclasses.replace(
    GOLDEN,
    embed=8,
    depths=(1, 2, 1, 1),
    heads=(1, 2, 2, 2),
    width=32,
    neck_heads=2,
    neck_layers=2,
    ffn=16,
    num_tokens=3,
)
"""A network that compiles fast."""


def golden(name):
    """The published arrays of a file, or the shapes in ``vidt_names.json``."""
    if name == "names":
        return json.loads((FILES / "vidt_names.json").read_text())
    return np.load(FILES / f"vidt_{name}.npz")


def sines(shape, t, scale=1.0, mean=0.0):
    """``mean + scale sin(1.7 k + 0.9 t + 0.3)`` over entries k in C order."""
    k = np.arange(math.prod(shape), dtype=np.float64)
    return (mean + scale * np.sin(1.7 * k + 0.9 * t + 0.3)).reshape(shape)


def golden_tensors(shapes, offset=0):
    """Golden tensors of a checkpoint; ``offset`` makes another network of them."""
    tensors = {}
    for t, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        scale, mean = math.sqrt(2 / math.prod(shape[1:])), 0.0
        if name.endswith("sampling_offsets.bias"):
            scale = 2.0
        elif len(shape) == 1:
            scale, mean = 0.1, float(name.endswith(".weight"))
        elif name.endswith(("det_token", "det_pos_embed", "bias_table")):
            scale = 0.5
        tensors[name] = sines(shape, t + offset, scale, mean)
    return tensors


def abstract(config, **options):
    """A model without values."""
    return nnx.eval_shape(lambda: Vidt(config, rngs=nnx.Rngs(0), **options))


def golden_vidt(config=GOLDEN, offset=0, **options):
    """A ViDT with golden parameters."""
    model = abstract(config, **options)
    tensors = golden_tensors(weights.shapes(model), offset)
    return nnx.merge(nnx.graphdef(model), weights.from_torch(model, tensors))


def golden_batch(dtype=np.float64):
    """Two images, the second one padded, and their mask."""
    images = sines((2, 3, 96, 80), 200).transpose(0, 2, 3, 1)
    mask = np.zeros((2, 96, 80), bool)
    mask[1, 80:], mask[1, :, 64:] = True, True
    images = np.where(mask[..., None], 0, images)
    return jnp.asarray(images, dtype), jnp.asarray(mask)
