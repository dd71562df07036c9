"""The detectors of an experiment as pure functions of their parameters."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab.basics.hint import did_you_mean
from kdlab.data.detection.batch import DetectionBatch
from kdlab.data.sources.moments import MOMENTS
from kdlab.models.vidt import CONFIGS, Detections, NeckInput, Vidt, VidtConfig
from kdlab.models.vidt.masks import resize_mask
from kdlab.models.vidt.weights import load

_SMALL = dataclasses.replace(
    CONFIGS["vidt_toy"], embed=16, depths=(1, 1, 1, 1), num_tokens=10
)
NETWORKS: dict[str, VidtConfig] = CONFIGS | {
    "vidt_digits": _SMALL,
    "vidt_digits_wide": dataclasses.replace(_SMALL, embed=32),
    "vidt_smoke": dataclasses.replace(
        _SMALL, embed=8, width=32, neck_heads=2, neck_layers=1, ffn=32, num_tokens=8
    ),
}
"""Sizes of ViDT by name: the published ones, and small ones for canvases of digits."""

_QUICK = {"xla_backend_optimization_level": 0}
"""For a program that runs once per network."""
MEAN, STD = MOMENTS["imagenet2012"]


class Detector(NamedTuple):
    """A ViDT as a pure function of its parameters.

    Attributes:
        graphdef: Its structure.
        config: Its architecture.
    """

    graphdef: Any
    config: VidtConfig

    def encode(self, params: Any, batch: DetectionBatch, key: jax.Array | None) -> Any:
        """Runs the body: returns what the neck takes, without the masks.

        Args:
            params: The parameters.
            batch: The images.
            key: Random key of drop path; None: evaluation.
        """
        images = normalize(batch.images, batch.mask)
        model = nnx.merge(self.graphdef, params)
        return tuple(model.encode(images, batch.mask, key=key)[:3])

    def decode(
        self, params: Any, neck: Any, mask: jax.Array, key: jax.Array | None
    ) -> Detections:
        """Runs neck and heads.

        Args:
            params: The parameters.
            neck: What :meth:`encode` returned.
            mask: True where images are padding.
            key: Random key of dropout; None: evaluation.
        """
        masks = tuple(resize_mask(mask, scale.shape[1:3]) for scale in neck[0])
        model = nnx.merge(self.graphdef, params)
        scales, det, positions = neck
        found = model.decode(NeckInput(scales, det, positions, masks), key=key)
        return jax.tree.map(lambda x: x.astype(jnp.float32), found)

    def detect(self, params: Any, batch: DetectionBatch) -> Detections:
        """Runs the whole detector in evaluation mode."""
        neck = self.encode(params, batch, None)
        return self.decode(params, neck, batch.mask, None)


def make_detector(
    name: str,
    num_classes: int,
    seed: int,
    *,
    weights: Path | None = None,
    dtype: str = "float32",
    remat: bool = False,
) -> tuple[Detector, Any]:
    """Makes a detector and its initial parameters.

    Args:
        name: A key of :data:`NETWORKS`.
        num_classes: Number of class logits.
        seed: Seed of the initial parameters.
        weights: Published checkpoint of ViDT, or of a Swin classifier for the body.
        dtype: Dtype of the computation.
        remat: See :class:`kdlab.models.vidt.Vidt`.

    Raises:
        ValueError: If there is no such network, or the weights do not fit.
    """
    if name not in NETWORKS:
        raise ValueError(
            f"{name!r} is not a detector: {did_you_mean(name, NETWORKS)}There are "
            f"{', '.join(NETWORKS)}."
        )
    config = dataclasses.replace(NETWORKS[name], num_classes=num_classes)

    def make(key: jax.Array) -> Vidt:
        return Vidt(config, rngs=nnx.Rngs(key), dtype=jnp.dtype(dtype), remat=remat)

    # Threefry: the weights do not depend on the default generator.
    key = jax.random.key(seed, impl="threefry2x32")
    graphdef = nnx.split(nnx.eval_shape(make, key), nnx.Param)[0]
    params = _init(key, config, dtype, remat)
    if weights is not None:
        model = nnx.merge(graphdef, params)
        load(weights, model)
        params = nnx.state(model, nnx.Param)
    return Detector(graphdef, config), params


@functools.partial(jax.jit, static_argnums=(1, 2, 3), compiler_options=_QUICK)
def _init(key: jax.Array, config: VidtConfig, dtype: str, remat: bool) -> Any:
    """Draws the initial parameters: compiled once for all seeds."""
    model = Vidt(config, rngs=nnx.Rngs(key), dtype=jnp.dtype(dtype), remat=remat)
    return nnx.state(model, nnx.Param)


def normalize(images: jax.Array, mask: jax.Array) -> jax.Array:
    """Normalises pixels as for ImageNet; padding becomes 0.

    Args:
        images: ``[b, h, w, 3]``, uint8.
        mask: True at padding, ``[b, h, w]`` bools.
    """
    mean, std = (
        255 * np.asarray(x, np.float32).reshape(1, 1, 1, 3) for x in (MEAN, STD)
    )
    pixels = (images.astype(jnp.float32) - mean) / std
    return jnp.where(mask[..., None], 0, pixels)


class TokenCache:
    """The teacher's tokens of every image, computed once and kept on the host.

    Args:
        tokens: Tokens of a batch; see :func:`tokens_of`.
        batches: Batches that hold every image once.
    """

    def __init__(self, tokens: Callable[[DetectionBatch], Any], batches: Any):
        rows: dict[int, Any] = {}
        for batch in batches:
            found = jax.tree.map(np.asarray, tokens(batch))
            for i, index in enumerate(batch.indices):
                if index >= 0:
                    rows[int(index)] = jax.tree.map(lambda x, i=i: x[i], found)
        ordered = [rows[index] for index in range(len(rows))]
        self._tokens = jax.tree.map(lambda *x: np.stack(x), *ordered)

    def __call__(self, batch: DetectionBatch) -> Any:
        """Returns the tokens of a batch."""
        return jax.tree.map(lambda x: x[batch.indices], self._tokens)


def tokens_of(found: Detections) -> Any:
    """Returns the tokens that are distilled, each with the images as first axis."""
    neck = jnp.swapaxes(found.neck_det, 0, 1)
    return found.patch_tokens, found.body_det, neck


def from_tokens(tokens: Any) -> Detections:
    """Inverts :func:`tokens_of`; predictions are absent."""
    patches, body, neck = tokens
    absent: Any = None
    return Detections(absent, absent, patches, body, jnp.swapaxes(neck, 0, 1))
