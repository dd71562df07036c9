"""Parameters, images and outputs of the golden values of `golden/vit_models.npz`.

Parameters are filled by a formula in exact integers, in the order of their names in
PyTorch, so that another implementation can fill the same network.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab.models import weights
from kdlab.models._blocks import Layers
from kdlab.models.convolutional.regnet import RegNetY
from kdlab.models.transformers.cait import CaiT
from kdlab.models.transformers.deit import DeiT
from kdlab.models.transformers.deit3 import DeiT3

FILE = Path(__file__).parent / "golden" / "vit_models.npz"


def golden(key):
    with np.load(FILE) as arrays:
        return arrays[key]


def uniform(count, seed):
    """Numbers in [-1, 1) by hashing integers."""
    modulus = 2**32
    x = np.arange(count, dtype=np.uint64) * 2654435761
    x = (x + np.uint64((seed + 1) * 2246822519)) % modulus
    for shift, factor in ((15, 2246822519), (13, 3266489917)):
        x ^= x >> np.uint64(shift)
        x = x * np.uint64(factor) % modulus
    x ^= x >> np.uint64(16)
    return x / modulus * 2 - 1


def values(key, shape, position):
    """The tensor of a state dict at a position in the sorted list of its keys."""
    v = uniform(int(np.prod(shape)), position).reshape(shape)
    last = key.split(".")[-1]
    if last.endswith(("_token", "_embed")):
        return 0.5 * v
    if last == "running_var":
        return 1 + 0.5 * v
    if last in ("bias", "running_mean"):
        return 0.1 * v
    if v.ndim == 1:
        return 1 + 0.2 * v
    return np.sqrt(3 / np.prod(shape[1:])) * v


def images(count, side):
    """Waves and noise, ``[b, side, side, 3]``."""
    i, y, x, c = np.indices((count, side, side, 3))
    noise = uniform(count * side * side * 3, 10**6).reshape(i.shape)
    return np.sin(0.05 * (c + 1) * y + i) * np.cos(0.03 * x * (i + 1)) + 0.5 * noise


def mixed():
    """Four images, each with the one opposite, as mixup makes them."""
    x = images(4, 64)
    return 0.3 * x + 0.7 * x[::-1]


def fill(name, make):
    """Fills a network; `name` is that of its family's names in PyTorch.

    Returns:
        The network in training mode, and the number of its tensors in a state dict.
    """
    model = nnx.eval_shape(make)
    shapes = weights.torch_shapes(name, model)
    tensors = {
        key: values(key, shapes[key], position)
        for position, key in enumerate(sorted(shapes))
    }
    state = weights.from_torch(name, model, tensors)
    return nnx.merge(nnx.graphdef(model), state), len(tensors)


def tiny(kind, dtype=jnp.float64, *, compute=None, **options):
    """Fills a small network of the table of golden values.

    Args:
        kind: A key of `TINY`.
        dtype: Dtype of the parameters.
        compute: Dtype of the computation; None: the same.
        **options: Other arguments of the constructor.
    """
    name, module, arguments, settings, side = TINY[kind]

    def make():
        return module(
            *arguments,
            **settings,
            **options,
            num_classes=10,
            image_shape=(side, side, 3),
            layers=Layers(nnx.Rngs(0), compute, dtype),
        )

    return fill(name, make)


SMALL = (32, 2, 2)
LINE = {"initial": 8, "slope": 10, "ratio": 2, "depth": 5, "group": 8}
TINY = {
    "vit": ("deit_ti", DeiT, SMALL, {"patch": 8}, 32),
    "distilled": (
        *("deit_ti_distilled", DeiT, SMALL),
        {"patch": 8, "distilled": True},
        32,
    ),
    "vkd": ("deit_ti_conv", DeiT, SMALL, {"stem": "conv", "distilled": True}, 64),
    "deit3": ("deit3_b", DeiT3, SMALL, {"patch": 8}, 32),
    "cait": ("cait_s24", CaiT, (32, 2, 4), {"patch": 8, "class_depth": 1}, 32),
    "regnet": ("regnety_160", RegNetY, (), LINE, 64),
}
"""Name in the zoo, constructor, its arguments and settings, side of the images."""

TRANSFORMERS = {
    "deit_ti": (5_717_416, 1253.7, 152),
    "deit_s": (22_050_664, 4598.9, 152),
    "deit_ti_distilled": (5_910_800, 1261.0, 155),
    "deit_s_distilled": (22_436_432, 4624.1, 155),
    "deit_ti_conv": (6_633_104, 2429.1, 169),
    "deit_s_conv": (23_797_520, 5917.5, 169),
    "vit_tiny32": (1_032_392, None, 71),
    "deit3_b": (86_585_320, 17563.8, 176),
    "cait_s24": (46_916_200, 9327.3, 476),
}
"""Numbers of parameters, millions of multiply-adds with those of attention, and tensors
in a state dict; vit_tiny32 has no counterpart elsewhere."""
