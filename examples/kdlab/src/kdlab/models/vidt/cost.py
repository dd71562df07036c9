"""Counts parameters, multiply-adds and the shared representation of a ViDT."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.models._summary import count_multiply_adds
from kdlab.models.vidt.config import VidtConfig
from kdlab.models.vidt.model import Vidt
from kdlab.models.vidt.weights import unused_shapes


class Cost(NamedTuple):
    """Size and cost of a forward pass of one image.

    Attributes:
        parameters: Number of parameters.
        unused: Number of parameters that only published checkpoints have; published
            counts are the sum of both.
        encode: Multiply-adds of body and projections.
        decode: Multiply-adds of neck and heads.
        shared: Number of floats of the neck's input, the representation that all
            losses share: four maps, tokens and their positions.
    """

    parameters: int
    unused: int
    encode: int
    decode: int
    shared: int


def cost(config: VidtConfig, size: tuple[int, int] = (800, 1216)) -> Cost:
    """Counts by tracing a model with abstract values.

    Multiply-adds are those of convolutions and matrix products; the gathers of
    deformable attention have none.

    Args:
        config: The architecture.
        size: ``(height, width)`` of the image.

    Returns:
        Counts, without allocation or compilation.

    Examples:
        >>> from kdlab.models.vidt import CONFIGS
        >>> counts = cost(CONFIGS["vidt_toy"], (96, 96))
        >>> counts.parameters, counts.encode, counts.decode
        (1066151, 45263616, 4852736)
    """
    model = nnx.eval_shape(lambda: Vidt(config, rngs=nnx.Rngs(0)))
    graphdef, params = nnx.split(model)
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, *size), bool)
    encode, neck = jax.make_jaxpr(
        lambda params, *inputs: nnx.merge(graphdef, params).encode(*inputs),
        return_shape=True,
    )(params, images, mask)
    decode = jax.make_jaxpr(
        lambda params, neck: nnx.merge(graphdef, params).decode(neck)
    )(params, neck)
    return Cost(
        parameters=_size(params),
        unused=sum(map(math.prod, unused_shapes(config).values())),
        encode=count_multiply_adds(encode.jaxpr),
        decode=count_multiply_adds(decode.jaxpr),
        shared=_size(neck[:3]),
    )


def _size(tree: object) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
