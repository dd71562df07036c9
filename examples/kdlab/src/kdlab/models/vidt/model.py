"""The whole detector."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from kdlab.models._blocks import Layers
from kdlab.models.vidt.config import VidtConfig
from kdlab.models.vidt.layers import count_on_host
from kdlab.models.vidt.masks import resize_mask
from kdlab.models.vidt.neck import Neck, Projection
from kdlab.models.vidt.outputs import Detections, NeckInput
from kdlab.models.vidt.swin import Body


class Vidt(nnx.Module):
    r"""A detector whose Swin body also carries detection tokens.

    In the body tokens attend to each other, in its last stage also to the patches; the
    neck samples four maps around the box of each token and refines it layer by layer.
    Each token is one box with a score for every class: no anchors, and no suppression
    of duplicates.

    The model is a pure function of its parameters: it has no modes and no state, and
    drops nothing unless it gets a key.

    Args:
        config: The architecture.
        rngs: Random stream of the initial values.
        dtype: Dtype of the computation; None: that of the parameters. Softmax,
            statistics of norms, locations and the heads use at least float32.
        param_dtype: Dtype of the parameters.
        remat: Whether backward passes compute blocks and layers again instead of
            keeping what is inside them.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from kdlab.models.vidt import CONFIGS, Vidt
        >>> model = nnx.eval_shape(
        ...     lambda: Vidt(CONFIGS["vidt_toy"], rngs=nnx.Rngs(0))
        ... )
        >>> images, mask = jnp.zeros((2, 96, 96, 3)), jnp.zeros((2, 96, 96), bool)
        >>> found = nnx.eval_shape(lambda model: model(images, mask), model)
        >>> found.logits.shape, found.boxes.shape
        ((3, 2, 20, 10), (3, 2, 20, 4))

    References:
        Song et al., `ViDT: An Efficient and Effective Fully Transformer-based Object
        Detector <https://arxiv.org/abs/2110.03921>`_, ICLR 2022

    Notes:
        Where the paper is silent, the published code is followed: windows attend to the
        zeros that fill them up; the mask of the last stage is resized twice
        (:func:`~kdlab.models.vidt.masks.resize_mask_for_body`); norms of the four
        projections average over padding. Its parameters that no forward pass uses
        are left out (:func:`~kdlab.models.vidt.weights.unused_shapes`).
    """

    def __init__(
        self,
        config: VidtConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool = False,
    ):
        dtype = jnp.dtype(dtype or param_dtype)
        layers = Layers(count_on_host(rngs), dtype=dtype, param_dtype=param_dtype)
        self.config, self.dtype = config, dtype
        self.backbone = Body(config, layers=layers, remat=remat)
        *_, last = config.stage_widths
        widths = (*config.stage_widths[1:], config.width)
        self.input_proj = nnx.List(
            [Projection(width, config.width, layers=layers) for width in widths]
        )
        self.tgt_proj = Projection(last, config.width, layers=layers)
        self.query_pos_proj = Projection(config.width, config.width, layers=layers)
        self.neck = Neck(config, layers=layers, remat=remat)

    def encode(
        self, images: jax.Array, mask: jax.Array, *, key: jax.Array | None = None
    ) -> NeckInput:
        """Runs the body and the projections.

        Args:
            images: Normalised images, zero at padding, ``[b, h, w, 3]``.
            mask: True at padding, ``[b, h, w]`` bool.
            key: Random key of drop path; None: evaluation, nothing is dropped.
        """
        maps, tokens = self.backbone(images.astype(self.dtype), mask, key=key)
        scales = tuple(
            project(x) for project, x in zip(self.input_proj, maps, strict=True)
        )
        positions = self.query_pos_proj(self.backbone.det_pos_embed[...])
        det = self.tgt_proj(tokens)
        return NeckInput(
            scales,
            det,
            jnp.broadcast_to(positions, det.shape),
            tuple(resize_mask(mask, (x.shape[1], x.shape[2])) for x in scales),
        )

    def decode(self, neck: NeckInput, *, key: jax.Array | None = None) -> Detections:
        """Runs the neck and the heads.

        Args:
            neck: What :meth:`encode` returned.
            key: Random key of dropout; None: evaluation, nothing is dropped.
        """
        return self.neck(neck, key=key)

    def __call__(
        self, images: jax.Array, mask: jax.Array, *, key: jax.Array | None = None
    ) -> Detections:
        """Detects; see :meth:`encode` and :meth:`decode`."""
        keys = (None, None) if key is None else jax.random.split(key)
        return self.decode(self.encode(images, mask, key=keys[0]), key=keys[1])
