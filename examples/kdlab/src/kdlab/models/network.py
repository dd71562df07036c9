"""Networks as pure functions of their arrays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.models import Outputs


class Network(NamedTuple):
    """A network as a pure function and its arrays."""

    graphdef: Any
    params: Any
    rest: Any

    @classmethod
    def of(cls, model: nnx.Module) -> "Network":
        """Splits an NNX model."""
        return cls(*nnx.split(model, nnx.Param, ...))

    def outputs(self, images: jax.Array) -> Outputs:
        """Runs it in evaluation mode."""
        model = nnx.merge(self.graphdef, self.params, self.rest, copy=True)
        model.eval()
        return wide(model(images))

    def about(self, images: jax.Array, indices: jax.Array) -> Outputs:
        """Outputs for a batch of images."""
        del indices
        return self.outputs(images)


class Remembered(NamedTuple):
    """Logits of a network for every training image, in place of the network.

    Attributes:
        logits: ``[n, c]``.
    """

    logits: jax.Array

    def about(self, images: jax.Array, indices: jax.Array) -> Outputs:
        """Logits of a batch; a loss that looks at more fails at once."""
        del images
        absent: Any = None
        logits = self.logits[indices]
        return Outputs(logits, features=absent, preactivations=absent, pooled=absent)


def wide(outputs: Outputs) -> Outputs:
    """Outputs in float32, for the losses, whatever the networks compute in."""
    return jax.tree.map(lambda x: x.astype(jnp.float32), outputs)
