"""DeiT III: plain vision transformers with LayerScale."""

import jax
import jax.numpy as jnp

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
    to_maps,
    to_tokens,
)
from kdlab.models.transformers._trunk import Trunk


class DeiT3(Model):
    """A vision transformer whose class token has no position, with LayerScale.

    Features are the map of the patch embedding and, as maps, the patch tokens after
    each block; their preactivations are the same. ``pooled`` is the class token.

    Args:
        width: Number of channels of a token.
        depth: Number of blocks.
        heads: Number of attention heads.
        layer_scale: Initial value of the factors of the branches.
        patch: Side of the patches in pixels.
        drop_path: Rate of stochastic depth, the same for all blocks.
        remat: Whether backward passes compute the blocks again, to save memory.
        scan: Whether the blocks are the turns of one loop; see ``Trunk``.
        num_classes: Number of classes.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    Raises:
        ValueError: If patches do not tile the image.

    References:
        Touvron et al., `DeiT III: Revenge of the ViT
        <https://arxiv.org/abs/2204.07118>`_, ECCV 2022.

    Notes:
        Initial factors are 1e-4 as in the released code; timm's are 1e-6, and its rate
        of stochastic depth increases linearly from 0.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        *,
        layer_scale: float = 1e-4,
        patch: int = 16,
        drop_path: float = 0.0,
        remat: bool = False,
        scan: bool = False,
        num_classes: int,
        image_shape: tuple[int, int, int],
        layers: Layers,
    ):
        self.stem = PatchEmbedding(patch, width, image_shape, layers)
        layers = matrix_layers(layers)
        self.cls_token = embedding(1, width, layers)
        self.pos_embed = embedding(self.stem.grid[0] * self.stem.grid[1], width, layers)
        depth = len(layers.blocks(depth))
        self.trunk = Trunk(
            [
                Block(Attention(width, heads, layers), width, layers, layer_scale)
                for _ in range(depth)
            ],
            [drop_path] * depth,
            remat=remat,
            scan=scan,
            rngs=layers.rngs,
        )
        self.norm = layer_norm(width, layers)
        self.classifier = layers.linear(width, num_classes)

    def __call__(self, x: jax.Array, patches: jax.Array | None = None) -> Outputs:
        """Runs the network.

        Args:
            x: Images, ``[b, h, w, c]``.
            patches: Indices of the patches that enter the blocks, ``[b, k]``; None: all
                patches.
        """
        stem = self.stem(x)
        x = to_tokens(stem)
        x = choose(x + self.pos_embed[...].astype(x.dtype), patches)
        ends = self.trunk(jnp.concatenate([repeat(self.cls_token, x), x], axis=1))
        x = self.norm(ends[-1])
        features = stem, *to_maps(ends[1:], 1, self.stem.grid, patches)
        attention = self.trunk.blocks[-1].attention_of_first(ends[-2])
        return Outputs(
            self.classifier(x[:, 0]),
            features,
            features,
            x[:, 0],
            tokens=x[:, 1:],
            attention=attention[:, :, 1:],
        )
