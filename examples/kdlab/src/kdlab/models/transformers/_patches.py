"""From images to tokens, and from tokens back to maps."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.models._blocks import Layers, torch_default


class PatchEmbedding(nnx.Module):
    """A convolution that maps each patch of an image to a token.

    Args:
        patch: Side of the patches in pixels.
        width: Number of channels of a token.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    Attributes:
        grid: Numbers of rows and columns of patches.

    Raises:
        ValueError: If patches do not tile the image.
    """

    def __init__(
        self,
        patch: int,
        width: int,
        image_shape: tuple[int, int, int],
        layers: Layers,
    ):
        self.grid = tile(image_shape, patch)
        # PyTorch's default, as DeiT leaves it.
        plain = dataclasses.replace(layers, conv_init=torch_default, bias_init=None)
        self.proj = plain.conv(
            image_shape[-1], width, patch, patch, padding=0, bias=True
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images ``[b, h, w, c]`` to a map of tokens."""
        return self.proj(x)


def tile(image_shape: tuple[int, int, int], patch: int) -> tuple[int, int]:
    """Returns the numbers of rows and columns of patches of an image.

    Raises:
        ValueError: If patches do not tile the image.
    """
    height, width, _ = image_shape
    if height % patch or width % patch:
        raise ValueError(
            f"images of {height} x {width} pixels cannot be cut into patches of "
            f"{patch} x {patch}; expected multiples of {patch}"
        )
    return height // patch, width // patch


def to_tokens(x: jax.Array) -> jax.Array:
    """Flattens a map row by row, ``[b, h, w, d]`` to ``[b, h w, d]``."""
    return x.reshape(len(x), -1, x.shape[-1])


def choose(x: jax.Array, patches: jax.Array | None) -> jax.Array:
    """Selects the tokens ``[b, n, d]`` of some patches ``[b, k]``; None: all."""
    return x if patches is None else jnp.take_along_axis(x, patches[:, :, None], 1)


def to_maps(
    ends: Sequence[jax.Array],
    extra: int,
    grid: tuple[int, int],
    patches: jax.Array | None,
) -> tuple[jax.Array, ...]:
    """Arranges patch tokens as maps.

    Args:
        ends: Tokens ``[b, extra + n, d]`` after each block.
        extra: Number of tokens before those of the patches.
        grid: Numbers of rows and columns of patches.
        patches: The patches that were chosen, ``[b, k]``; None: all.

    Returns:
        Maps ``[b, h, w, d]``, or ``[b, 1, k, d]`` of the chosen patches.
    """
    shape = grid if patches is None else (1, patches.shape[1])
    return tuple(x[:, extra:].reshape(len(x), *shape, x.shape[-1]) for x in ends)


def repeat(token: nnx.Param, like: jax.Array) -> jax.Array:
    """Repeats a token ``[1, 1, d]`` for a batch, in its dtype, to ``[b, 1, d]``."""
    return jnp.broadcast_to(
        token[...].astype(like.dtype), (len(like), *token.shape[1:])
    )
