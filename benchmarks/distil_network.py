"""A kdlab network as functions of its weights, for `benchmarks.distil`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab.data import normalize
from kdlab.models import create


class Network:
    """A kdlab network for one data set, as functions of its weights.

    Args:
        name: Name of the network.
        dtype: Dtype of the computation; weights and statistics stay in float32.
        stats: Mean and standard deviation of each channel.
        shape: ``(height, width, channels)``.
        classes: Number of classes.
    """

    def __init__(
        self,
        name: str,
        dtype: str,
        stats: Any,
        shape: tuple[int, int, int],
        classes: int,
    ) -> None:
        self._stats, self._dtype = stats, jnp.dtype(dtype)
        self._make = lambda seed: create(
            name,
            rngs=nnx.Rngs(seed),
            image_shape=shape,
            num_classes=classes,
            dtype=self._dtype,
        )
        model = nnx.eval_shape(lambda: self._make(0))
        self._graphdef = nnx.split(model, nnx.Param, ...)[0]

    def start(self, seed: int) -> tuple[Any, Any]:
        """Makes parameters and statistics on the host, to avoid a program per shape."""
        with jax.default_device(jax.devices("cpu")[0]):
            _, params, rest = nnx.split(self._make(seed), nnx.Param, ...)
        return jax.tree.map(np.asarray, (params, rest))

    def logits(self, weights: tuple[Any, Any], images: jax.Array) -> jax.Array:
        """Computes logits of ``uint8`` images with running statistics."""
        return self._run(weights, images, train=False)[0]

    def train(self, params: Any, rest: Any, images: jax.Array) -> tuple[Any, Any]:
        """Computes logits with batch statistics, and the new running statistics."""
        return self._run((params, rest), images, train=True)

    def _run(self, weights: Any, images: jax.Array, *, train: bool) -> tuple[Any, Any]:
        network = nnx.merge(self._graphdef, *weights, copy=True)
        network.train() if train else network.eval()
        scores = network(normalize(images, *self._stats, self._dtype)).logits
        return scores.astype(jnp.float32), nnx.split(network, nnx.Param, ...)[2]
