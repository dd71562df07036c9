"""DeiT: vision transformers with a class token, and a distillation token beside it."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.models._blocks import Layers
from kdlab.models._outputs import Model, Outputs
from kdlab.models.transformers._layers import (
    Attention,
    Block,
    embedding,
    layer_norm,
    matrix_layers,
)
from kdlab.models.transformers._patches import (
    PatchEmbedding,
    choose,
    repeat,
    tile,
    to_maps,
    to_tokens,
)
from kdlab.models.transformers._trunk import Trunk, linear_rates

kaiming_fan_in = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")


class ConvStem(nnx.Module):
    """Three convolutions with BatchNorm and ReLU, and one that makes the tokens.

    The first halves the image; the last has half the patch as size and stride. VkD and
    SRD put it in the place of DeiT's patch embedding.

    Args:
        patch: Side of the patches in pixels, an even number.
        width: Number of channels of a token.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    Attributes:
        grid: Numbers of rows and columns of patches.

    Raises:
        ValueError: If patches do not tile the image, or the patch is odd.
    """

    def __init__(
        self,
        patch: int,
        width: int,
        image_shape: tuple[int, int, int],
        layers: Layers,
    ):
        if patch % 2:
            raise ValueError(f"patch is {patch}; the conv stem needs an even number")
        self.grid = tile(image_shape, patch)
        layers = dataclasses.replace(layers, conv_init=kaiming_fan_in, bias_init=None)
        self.convs = nnx.List(
            [
                layers.conv_norm(image_shape[-1], 64, 7, 2),
                layers.conv_norm(64, 64, 3),
                layers.conv_norm(64, 64, 3),
            ]
        )
        half = patch // 2
        self.patches = layers.conv(64, width, half, half, padding=0, bias=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images ``[b, h, w, c]`` to a map of tokens."""
        for conv in self.convs:
            x = nnx.relu(conv(x))
        return self.patches(x)


class DeiT(Model):
    """A vision transformer, with or without a distillation token.

    The class token, the distillation token and the patches, in this order, get position
    embeddings and pass through the blocks and a LayerNorm. Features are the map of the
    stem and, as maps, the patch tokens after each block; their preactivations are the
    same. ``pooled`` is the class token.

    Args:
        width: Number of channels of a token.
        depth: Number of blocks.
        heads: Number of attention heads.
        distilled: Whether there is a distillation token with a head of its own. See
            :class:`~kdlab.models.Outputs` for the logits of the two heads.
        stem: ``"patch"``: one convolution, as in DeiT. ``"conv"``: that of
            :class:`ConvStem`. The distillation token is then the mean of the patches,
            instead of a parameter.
        patch: Side of the patches in pixels.
        drop_path: Rate of stochastic depth of the last block; that of the others
            increases linearly from 0.
        remat: Whether backward passes compute the blocks again, to save memory.
        scan: Whether the blocks are the turns of one loop; see ``Trunk``.
        num_classes: Number of classes.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    Raises:
        ValueError: If patches do not tile the image, or for an unknown stem.

    References:
        Touvron et al., `Training data-efficient image transformers & distillation
        through attention <https://arxiv.org/abs/2012.12877>`_, ICML 2021.

    Notes:
        In evaluation the released code averages the *logits* of the two heads, and so
        does this one; the paper adds their softmax outputs. The class token starts from
        N(0, 0.02^2) as in the released code; today's timm uses N(0, 1e-6).
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        *,
        distilled: bool = False,
        stem: Literal["patch", "conv"] = "patch",
        patch: int = 16,
        drop_path: float = 0.0,
        remat: bool = False,
        scan: bool = False,
        num_classes: int,
        image_shape: tuple[int, int, int],
        layers: Layers,
    ):
        if stem not in ("patch", "conv"):
            raise ValueError(f"stem is {stem!r}; expected 'patch' or 'conv'")
        make = PatchEmbedding if stem == "patch" else ConvStem
        self.stem = make(patch, width, image_shape, layers)
        layers = matrix_layers(layers)
        self.cls_token = embedding(1, width, layers)
        own = distilled and stem == "patch"
        self.dist_token = embedding(1, width, layers) if own else None
        count = 1 + distilled + self.stem.grid[0] * self.stem.grid[1]
        self.pos_embed = embedding(count, width, layers)
        depth = len(layers.blocks(depth))
        self.trunk = Trunk(
            [
                Block(Attention(width, heads, layers), width, layers)
                for _ in range(depth)
            ],
            linear_rates(drop_path, depth),
            remat=remat,
            scan=scan,
            rngs=layers.rngs,
        )
        self.norm = layer_norm(width, layers)
        self.classifier = layers.linear(width, num_classes)
        self.distill_classifier = (
            layers.linear(width, num_classes) if distilled else None
        )
        self.deterministic = False

    def __call__(self, x: jax.Array, patches: jax.Array | None = None) -> Outputs:
        """Runs the network.

        Args:
            x: Images, ``[b, h, w, c]``.
            patches: Indices of the patches that enter the blocks, ``[b, k]``; None: all
                patches.
        """
        stem = self.stem(x)
        x, extra = self.embed(stem)
        if patches is not None:
            x = jnp.concatenate([x[:, :extra], choose(x[:, extra:], patches)], 1)
        ends = self.trunk(x)
        x = self.norm(ends[-1])
        features = stem, *to_maps(ends[1:], extra, self.stem.grid, patches)
        attention = self.trunk.blocks[-1].attention_of_first(ends[-2])
        absent: Any = None
        return self.classify(
            Outputs(
                absent,
                features,
                features,
                x[:, 0],
                distill_pooled=None if self.distill_classifier is None else x[:, 1],
                tokens=x[:, extra:],
                attention=attention[:, :, extra:],
            )
        )

    def classify(self, outputs: Outputs) -> Outputs:
        """Adds the logits to outputs with the tokens that the heads read."""
        logits, distill_logits = self.classifier(outputs.pooled), None
        if self.distill_classifier is not None and outputs.distill_pooled is not None:
            distill_logits = self.distill_classifier(outputs.distill_pooled)
            if self.deterministic:
                logits = (logits + distill_logits) / 2
        return outputs._replace(logits=logits, distill_logits=distill_logits)

    def embed(self, stem: jax.Array) -> tuple[jax.Array, int]:
        """Makes the sequence of tokens.

        Args:
            stem: The map of the stem, ``[b, h, w, d]``.

        Returns:
            All tokens, with their positions, and the number of those before the
            patches.
        """
        x = to_tokens(stem)
        before = [repeat(self.cls_token, x)]
        if self.dist_token is not None:
            before.append(repeat(self.dist_token, x))
        elif self.distill_classifier is not None:
            before.append(jnp.mean(x, axis=1, keepdims=True))
        x = jnp.concatenate([*before, x], axis=1)
        return x + self.pos_embed[...].astype(x.dtype), len(before)
