"""The interface of all models."""

from typing import NamedTuple

import jax
from flax import nnx


class Outputs(NamedTuple):
    """The outputs of a forward pass that distillation losses may use.

    Attributes:
        logits: Class scores, ``[b, c]``.
        features: Stage maps ``[b, h, w, d]`` from shallow to deep, for losses on
            features: the stem first, after the activation. Families that depart from
            this document it.
        preactivations: The same maps before their last activation.
        pooled: Penultimate features, the input of the classifier, ``[b, d]``.
    """

    logits: jax.Array
    features: tuple[jax.Array, ...]
    preactivations: tuple[jax.Array, ...]
    pooled: jax.Array


class Model(nnx.Module):
    """A network that maps images ``[b, h, w, d]`` to :class:`Outputs`."""

    def __call__(self, x: jax.Array) -> Outputs:
        """Runs the network; in training mode it updates BatchNorm statistics once."""
        raise NotImplementedError
