"""The whole detector."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from kdlab.models.vidt.config import VidtConfig
from kdlab.models.vidt.outputs import Detections, NeckInput


class Vidt(nnx.Module):
    """A detector whose Swin body also carries detection tokens.

    Args:
        config: The architecture.
        rngs: Random stream of the initial values.
        dtype: Dtype of the computation; None: that of the parameters.
        param_dtype: Dtype of the parameters.
        remat: Whether backward passes compute blocks and layers again instead of
            keeping what is inside them.
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
        raise NotImplementedError

    def encode(
        self, images: jax.Array, mask: jax.Array, *, key: jax.Array | None = None
    ) -> NeckInput:
        """Runs the body and the projections.

        Args:
            images: Normalised images, zero at padding, ``[b, h, w, 3]``.
            mask: True at padding, ``[b, h, w]`` bool.
            key: Random key of drop path; None: evaluation, nothing is dropped.
        """
        raise NotImplementedError

    def decode(self, neck: NeckInput, *, key: jax.Array | None = None) -> Detections:
        """Runs the neck and the heads.

        Args:
            neck: What :meth:`encode` returned.
            key: Random key of dropout; None: evaluation, nothing is dropped.
        """
        raise NotImplementedError

    def __call__(
        self, images: jax.Array, mask: jax.Array, *, key: jax.Array | None = None
    ) -> Detections:
        """Detects; see :meth:`encode` and :meth:`decode`."""
        raise NotImplementedError
