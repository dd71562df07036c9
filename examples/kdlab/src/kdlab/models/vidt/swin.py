"""The body: a Swin transformer whose blocks also carry detection tokens."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.models._batch_norm import widen
from kdlab.models._blocks import Layers
from kdlab.models.vidt import masks
from kdlab.models.vidt.attention import Context, ReconfiguredAttention
from kdlab.models.vidt.config import VidtConfig
from kdlab.models.vidt.layers import draw, dropout, layer_norm, trunc_normal


class Mlp(nnx.Module):
    """Two linear layers and an exact GELU; four times wider inside."""

    def __init__(self, width: int, *, layers: Layers):
        self.fc1 = layers.linear(width, 4 * width)
        self.fc2 = layers.linear(4 * width, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Transforms ``[..., d]``."""
        return self.fc2(nnx.gelu(self.fc1(x), approximate=False))


class Block(nnx.Module):
    """A Swin block on patches and detection tokens.

    Args:
        width: Number of channels.
        heads: Number of attention heads.
        window: Side of the windows.
        shift: By how much the windows are shifted; 0: not.
        position_width: Width of the positions of the tokens.
        drop_path: Rate at which both residuals of an image are dropped.
        layers: Factory of the layers.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        window: int,
        shift: int,
        *,
        position_width: int,
        drop_path: float = 0.0,
        layers: Layers,
    ):
        self.drop_path = drop_path
        self.norm1 = layer_norm(width, layers)
        self.attn = ReconfiguredAttention(width, heads, window, shift, layers=layers)
        self.norm2 = layer_norm(width, layers)
        self.mlp = Mlp(width, layers=layers)
        torch_layers = Layers(
            layers.rngs, dtype=layers.dtype, param_dtype=layers.param_dtype
        )
        self.det_pos_linear = torch_layers.linear(position_width, width)

    def __call__(
        self,
        patches: jax.Array,
        tokens: jax.Array,
        positions: jax.Array,
        context: Context | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Transforms patches and tokens.

        Args:
            patches: ``[b, h, w, d]``.
            tokens: Detection tokens, ``[b, n, d]``.
            positions: Positions of the tokens, ``[1, n, position_width]``.
            context: What lets tokens attend to the patches; None: they do not.
            key: Random key of drop path; None: nothing is dropped.

        Returns:
            New patches and tokens.
        """
        b, h, w, d = patches.shape
        x = jnp.concatenate([patches.reshape(b, -1, d), tokens], 1)
        normal = self.norm1(x)
        placed = normal[:, h * w :] + self.det_pos_linear(positions)
        residual = self.attn(normal[:, : h * w].reshape(patches.shape), placed, context)
        keys = (None, None) if key is None else jax.random.split(key)
        x += dropout(residual, self.drop_path, keys[0], axes=1)
        x += dropout(self.mlp(self.norm2(x)), self.drop_path, keys[1], axes=1)
        return x[:, : h * w].reshape(patches.shape), x[:, h * w :]


class Merging(nnx.Module):
    """Halves a map: LayerNorm and a linear layer on each 2 x 2 square.

    Args:
        inputs: Number of channels.
        outputs: Number of new channels.
        layers: Factory of the layers.
    """

    def __init__(self, inputs: int, outputs: int, *, layers: Layers):
        self.norm = layer_norm(4 * inputs, layers)
        self.reduction = nnx.Linear(
            4 * inputs,
            outputs,
            use_bias=False,
            kernel_init=layers.linear_init,
            dtype=layers.dtype,
            param_dtype=layers.param_dtype,
            rngs=layers.rngs,
        )

    def merge_patches(self, x: jax.Array) -> jax.Array:
        """Halves ``[b, h, w, d]``, rounded up."""
        b, h, w, d = x.shape
        x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
        h, w = x.shape[1] // 2, x.shape[2] // 2
        # Columns are outside: the square is read downwards first.
        x = x.reshape(b, h, 2, w, 2, d).transpose(0, 1, 3, 4, 2, 5)
        return self._reduce(x.reshape(b, h, w, 4 * d))

    def widen_tokens(self, tokens: jax.Array) -> jax.Array:
        """Takes a token for a square of four equal patches, ``[b, n, d]``."""
        return self._reduce(jnp.tile(tokens, (1, 1, 4)))

    def _reduce(self, x: jax.Array) -> jax.Array:
        return self.reduction(self.norm(x))


class PatchEmbed(nnx.Module):
    """A linear map of each 4 x 4 square of pixels and a LayerNorm."""

    def __init__(self, width: int, *, layers: Layers):
        self.proj = layers.conv(3, width, 4, 4, padding=0, bias=True)
        self.norm = layer_norm(width, layers)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Embeds ``[b, h, w, 3]``, padded with zeros to multiples of 4."""
        h, w = images.shape[1:3]
        images = jnp.pad(images, ((0, 0), (0, -h % 4), (0, -w % 4), (0, 0)))
        return self.norm(self.proj(images))


class Stage(nnx.Module):
    """Blocks, every second one with shifted windows, and the merging after them."""

    def __init__(self, blocks: list[Block], downsample: Merging):
        self.blocks = nnx.List(blocks)
        self.downsample = downsample


class Body(nnx.Module):
    """A Swin transformer with detection tokens.

    Args:
        config: The architecture.
        layers: Factory of the layers.
        remat: Whether backward passes compute the blocks again.
    """

    def __init__(self, config: VidtConfig, *, layers: Layers, remat: bool = False):
        self.remat = remat
        torch_layers = layers
        layers = dataclasses.replace(
            layers, linear_init=trunc_normal, bias_init=nnx.initializers.zeros
        )
        self.patch_embed = PatchEmbed(config.embed, layers=torch_layers)
        total = sum(config.depths)
        count = 0
        self.layers = nnx.List([])
        for stage, depth in enumerate(config.depths):
            width, last = config.stage_widths[stage], stage == 3
            blocks = []
            for i in range(depth):
                block = Block(
                    width,
                    config.heads[stage],
                    config.window,
                    config.window // 2 * (i % 2),
                    position_width=config.width,
                    drop_path=config.drop_path * count / max(total - 1, 1),
                    layers=layers,
                )
                blocks.append(block)
                count += 1
            # Published bodies have no merging after the last stage: it starts anew.
            merging = Merging(
                width,
                config.width if last else 2 * width,
                layers=torch_layers if last else layers,
            )
            self.layers.append(Stage(blocks, merging))
        self.det_token = draw(layers, 1, config.num_tokens, config.embed)
        self.det_pos_embed = draw(layers, 1, config.num_tokens, config.width)

    def __call__(
        self, images: jax.Array, mask: jax.Array, *, key: jax.Array | None = None
    ) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """Runs the body.

        Args:
            images: ``[b, h, w, 3]``, zero at padding.
            mask: True at padding, ``[b, h, w]`` bool.
            key: Random key of drop path; None: nothing is dropped.

        Returns:
            Maps ``[b, h_l, w_l, d_l]`` at strides 8, 16, 32 and 64, and the detection
            tokens of the last stage, ``[b, n, d]``.
        """
        patches = self.patch_embed(images)
        dtype = patches.dtype
        tokens = self.det_token[...].astype(dtype)
        tokens = jnp.broadcast_to(tokens, (len(images), *tokens.shape[1:]))
        positions = self.det_pos_embed[...].astype(dtype)
        maps = []
        for i, stage in enumerate(self.layers):
            context = _context(mask, patches) if i == 3 else None
            for block in stage.blocks:
                own = None
                if key is not None and block.drop_path:
                    key, own = jax.random.split(key)
                run = jax.checkpoint(block.__call__) if self.remat else block
                patches, tokens = run(patches, tokens, positions, context, own)
            if i > 0:
                maps.append(patches)
            patches = stage.downsample.merge_patches(patches)
            if i < 3:
                tokens = stage.downsample.widen_tokens(tokens)
        return (*maps, patches), tokens


def _context(mask: jax.Array, patches: jax.Array) -> Context:
    _, h, w, d = patches.shape
    mask = masks.resize_mask_for_body(mask, (h, w))
    return Context(masks.sine_positions(mask, d, widen(patches.dtype)), mask)
