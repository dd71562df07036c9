"""A network as a pure function, and the data that it sees."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from examples.distill.models import Outputs


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


class Split(NamedTuple):
    """Images and labels of one part of a data set.

    Attributes:
        images: ``[n, h, w, c]`` of uint8.
        labels: ``[n]``.
    """

    images: Any
    labels: Any

    def take(self, indices: Any) -> "Chosen":
        """Gathers one batch."""
        return Chosen(self.images[indices], self.labels[indices])


class Chosen(NamedTuple):
    """Images and labels of one batch, where the data set is not on the device."""

    images: Any
    labels: Any


def taught(batch: dict, teacher: Network) -> dict:
    """The batch with what the teacher says of its images."""
    return batch | {"teacher": teacher.outputs(batch["images"])}


def wide(outputs: Outputs) -> Outputs:
    """Outputs in float32, for the losses, whatever the networks compute in."""
    return jax.tree.map(lambda x: x.astype(jnp.float32), outputs)
