"""Trees with the shapes of known networks, filled with noise."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab.models import create

Shapes = list[tuple[int, ...]]


def _network(name: str) -> Shapes:
    model = nnx.eval_shape(lambda: create(name, rngs=nnx.Rngs(0)))
    return [leaf.shape for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]


def _transformer(width: int, depth: int, rest: Shapes) -> Shapes:
    """Returns shapes of blocks of attention and an MLP of four times the width."""
    matrices = [(3 * width, width), (width, width), (4 * width, width)]
    matrices.append((width, 4 * width))
    block = [*matrices, *[(rows,) for rows, _ in matrices], *[(width,)] * 4]
    return [*rest, *block * depth]


SHAPES = {
    "resnet8x4": lambda: _network("resnet8x4"),
    "resnet50": lambda: _network("resnet50_imagenet"),
    "deit_tiny": lambda: _transformer(
        192, 12, [(16, 16, 3, 192), (197, 192), (192,), (1000, 192), (1000,)]
    ),
    "deit_small": lambda: _transformer(
        384, 12, [(16, 16, 3, 384), (197, 384), (384,), (1000, 384), (1000,)]
    ),
    "transformer_100m": lambda: _transformer(768, 12, [(20_000, 768), (768,)]),
}
"""The last two only with ``--large``."""

LARGE = ("deit_small", "transformer_100m")


def parameters(shapes: Shapes) -> int:
    """Counts the elements."""
    return sum(int(np.prod(shape)) for shape in shapes)


def gradients(shapes: Shapes, k: int, dtype: str = "float32") -> tuple:
    """Makes K trees of noise."""
    rng = np.random.default_rng(0)

    def leaf(shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape, np.float32)).astype(dtype)

    return tuple([leaf(shape) for shape in shapes] for _ in range(k))
