"""What every model is and returns."""

from typing import NamedTuple

import jax
from flax import nnx


class Outputs(NamedTuple):
    """Everything a distillation loss may look at, from one forward pass.

    Attributes:
        logits: Class scores, ``[b, c]``.
        features: Stage maps ``[b, h, w, d]`` from shallow to deep, as the loss on
            features takes them: after the activation in most families, the stem
            first. Where a family departs from this, its file says so.
        preactivations: The same maps before their last activation.
        pooled: The vector that the classifier sees, ``[b, d]``.
    """

    logits: jax.Array
    features: tuple[jax.Array, ...]
    preactivations: tuple[jax.Array, ...]
    pooled: jax.Array


class Model(nnx.Module):
    """A network that maps images ``[b, h, w, d]`` to :class:`Outputs`."""

    def __call__(self, x: jax.Array) -> Outputs:
        """Runs the network; in training mode BatchNorm's statistics move once."""
        raise NotImplementedError
