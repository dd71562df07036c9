"""Layer normalisation of transformers."""

import jax
from flax import nnx

from kdlab.models._batch_norm import widen
from kdlab.models._blocks import Layers


class LayerNorm(nnx.LayerNorm):
    """Layer normalisation with statistics of at least float32.

    The variance is the mean squared deviation: the mean square less the squared mean,
    Flax's default, loses the digits of tokens whose mean is far from 0.

    Args:
        width: Number of channels.
        layers: Options of the model.
        epsilon: Added to the variance.
    """

    def __init__(self, width: int, layers: Layers, *, epsilon: float):
        super().__init__(
            width,
            epsilon=epsilon,
            use_fast_variance=False,
            param_dtype=layers.param_dtype,
            rngs=layers.rngs,
        )

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Normalises ``[..., d]`` over its last axis."""
        wide = x.astype(widen(x.dtype))
        return super().__call__(wide, mask=mask).astype(x.dtype)
