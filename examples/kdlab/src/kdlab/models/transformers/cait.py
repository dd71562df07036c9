"""CaiT: talking heads among the patches, then class attention."""

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.models._blocks import Layers
from kdlab.models._outputs import Model, Outputs
from kdlab.models.transformers._layers import (
    Attention,
    Block,
    Mlp,
    attend,
    branch_factors,
    embedding,
    layer_norm,
    matrix_layers,
    scale_branch,
    score,
    split_heads,
)
from kdlab.models.transformers._patches import (
    PatchEmbedding,
    choose,
    repeat,
    to_maps,
    to_tokens,
)
from kdlab.models.transformers._trunk import Trunk


class TalkingHeads(Attention):
    r"""Self-attention whose heads are mixed before and after the softmax.

    .. math:: W\,\mathrm{softmax}\bigl(L\,(q k^\top / \sqrt d) + l\bigr) + w

    with matrices L, W over heads. Scores, mixing and softmax are in float32 or wider.

    Args:
        width: Number of channels.
        heads: Number of heads.
        layers: Factory of the layers.

    References:
        Shazeer et al., `Talking-Heads Attention <https://arxiv.org/abs/2003.02436>`_,
        2020.
    """

    def __init__(self, width: int, heads: int, layers: Layers):
        super().__init__(width, heads, layers)
        self.proj_l = layers.linear(heads, heads)
        self.proj_w = layers.linear(heads, heads)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[b, n, d]`` to ``[b, n, d]``."""
        query, key, value = self.split(x)
        weights = jax.nn.softmax(_mix(self.proj_l, score(query, key)))
        weights = _mix(self.proj_w, weights).astype(value.dtype)
        mixed = jnp.einsum("bhmn,bnhd->bmhd", weights, value)
        return self.proj(mixed.reshape(x.shape))


def _mix(linear: nnx.Linear, x: jax.Array) -> jax.Array:
    """Applies a linear layer to the heads of ``[b, heads, m, n]`` in the dtype of x."""
    assert linear.bias is not None
    kernel, bias = (p[...].astype(x.dtype) for p in (linear.kernel, linear.bias))
    return jnp.einsum("bhmn,hg->bgmn", x, kernel) + bias[None, :, None, None]


class ClassAttention(nnx.Module):
    """Attention of the class token alone to itself and the patches.

    Args:
        width: Number of channels.
        heads: Number of heads.
        layers: Factory of the layers.
    """

    def __init__(self, width: int, heads: int, layers: Layers):
        self.heads = heads
        self.q = layers.linear(width, width)
        self.k = layers.linear(width, width)
        self.v = layers.linear(width, width)
        self.proj = layers.linear(width, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[b, 1 + n, d]``, the class token first, to ``[b, 1, d]``."""
        query, key = self.split(x)
        return self.proj(attend(query, key, split_heads(self.v(x), self.heads)))

    def split(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the query of the class token and the keys of all tokens."""
        query = split_heads(self.q(x[:, :1]), self.heads)
        return query, split_heads(self.k(x), self.heads)

    def attention_of_first(self, x: jax.Array) -> jax.Array:
        """Returns the attention of the class token, ``[b, heads, 1 + n]``."""
        return jax.nn.softmax(score(*self.split(x)))[:, :, 0]


class ClassBlock(nnx.Module):
    """A block that updates the class token and leaves the patches as they are.

    Args:
        width: Number of channels.
        heads: Number of heads.
        layers: Factory of the layers.
        layer_scale: Initial value of the factors of the branches.
    """

    def __init__(self, width: int, heads: int, layers: Layers, layer_scale: float):
        self.norm1 = layer_norm(width, layers)
        self.attn = ClassAttention(width, heads, layers)
        self.norm2 = layer_norm(width, layers)
        self.mlp = Mlp(width, layers)
        self.gamma_1 = branch_factors(width, layer_scale, layers)
        self.gamma_2 = branch_factors(width, layer_scale, layers)

    def __call__(self, cls: jax.Array, x: jax.Array) -> jax.Array:
        """Returns the new class token.

        Args:
            cls: Class token, ``[b, 1, d]``.
            x: Patch tokens, ``[b, n, d]``.
        """
        both = jnp.concatenate([cls, x], axis=1)
        cls += scale_branch(self.attn(self.norm1(both)), self.gamma_1, None)
        return cls + scale_branch(self.mlp(self.norm2(cls)), self.gamma_2, None)

    def attention_of_first(self, cls: jax.Array, x: jax.Array) -> jax.Array:
        """Returns the attention of the class token, ``[b, heads, 1 + n]``."""
        both = jnp.concatenate([cls, x], axis=1)
        return self.attn.attention_of_first(self.norm1(both))


class CaiT(Model):
    """A transformer whose class token joins after the blocks of the patches.

    Features are the map of the patch embedding and, as maps, the patch tokens after
    each block; their preactivations are the same. ``pooled`` is the class token.

    Args:
        width: Number of channels of a token.
        depth: Number of blocks of the patches.
        heads: Number of attention heads.
        class_depth: Number of blocks of the class token.
        layer_scale: Initial value of the factors of the branches; that of the paper
            depends on the depth.
        patch: Side of the patches in pixels.
        drop_path: Rate of stochastic depth, the same for all blocks of the patches;
            those of the class token are never dropped.
        remat: Whether backward passes compute the blocks of the patches again, to save
            memory.
        scan: Whether the blocks of the patches are the turns of one loop; see
            ``Trunk``.
        num_classes: Number of classes.
        image_shape: ``(height, width, channels)``.
        layers: Factory of the layers.

    Raises:
        ValueError: If patches do not tile the image.

    References:
        Touvron et al., `Going deeper with Image Transformers
        <https://arxiv.org/abs/2103.17239>`_, ICCV 2021.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        *,
        class_depth: int = 2,
        layer_scale: float = 1e-5,
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
                Block(TalkingHeads(width, heads, layers), width, layers, layer_scale)
                for _ in range(depth)
            ],
            [drop_path] * depth,
            remat=remat,
            scan=scan,
            rngs=layers.rngs,
        )
        self.class_blocks = nnx.List(
            [
                ClassBlock(width, heads, layers, layer_scale)
                for _ in layers.blocks(class_depth)
            ]
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
        ends = self.trunk(x)
        classes = [repeat(self.cls_token, x)]
        for block in self.class_blocks:
            classes.append(block(classes[-1], ends[-1]))
        x = self.norm(jnp.concatenate([classes[-1], ends[-1]], axis=1))
        features = stem, *to_maps(ends[1:], 0, self.stem.grid, patches)
        attention = self.class_blocks[-1].attention_of_first(classes[-2], ends[-1])
        return Outputs(
            self.classifier(x[:, 0]),
            features,
            features,
            x[:, 0],
            tokens=x[:, 1:],
            attention=attention[:, :, 1:],
        )
