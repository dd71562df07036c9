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
        """Makes a network from an NNX model."""
        return cls(*nnx.split(model, nnx.Param, ...))

    def outputs(self, images: jax.Array, **others: Any) -> Outputs:
        """Runs the network in evaluation mode.

        Args:
            images: ``[b, h, w, c]``.
            **others: Other arguments of the network, such as ``patches``.
        """
        model = nnx.merge(self.graphdef, self.params, self.rest, copy=True)
        model.eval()
        return to_float32(model(images, **others))

    def outputs_for(self, images: jax.Array, indices: jax.Array) -> Outputs:
        """Returns the outputs for a batch of images."""
        del indices
        return self.outputs(images)


class CachedLogits(NamedTuple):
    """Cached logits of a network for all training images, in place of the network.

    Attributes:
        logits: ``[n, c]``.
    """

    logits: jax.Array

    def outputs_for(self, images: jax.Array, indices: jax.Array) -> Outputs:
        """Returns the logits of a batch; losses that use other outputs fail at once."""
        del images
        absent: Any = None
        logits = self.logits[indices]
        return Outputs(logits, features=absent, preactivations=absent, pooled=absent)


def keep(outputs: Outputs, names: tuple[str, ...]) -> Outputs:
    """Returns these fields of the outputs; the others are None."""
    absent: dict[str, Any] = dict.fromkeys(Outputs._fields)
    return Outputs(**(absent | {name: getattr(outputs, name) for name in names}))


def to_float32(outputs: Outputs) -> Outputs:
    """Casts outputs to float32, or wider if they are, for the losses."""
    return jax.tree.map(
        lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), outputs
    )
