"""Trainable adapters between student and teacher, one for each loss that needs one.

Each is built from example features (arrays, or anything with a shape, such as the
result of ``jax.eval_shape``), is trained together with the student, and is discarded
afterwards.
"""

from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx


class Shaped(Protocol):
    """An array or its description."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        ...


class HintRegressor(nnx.Module):
    """FitNet's regressor: convolution to the teacher's map, BatchNorm and ReLU.

    Args:
        student_map: Example map of the student, ``[b, h, w, c]``.
        teacher_map: Example map of the teacher.
        rngs: Random streams of the initial parameters.
    """

    def __init__(self, student_map: Shaped, teacher_map: Shaped, *, rngs: nnx.Rngs):
        ours, theirs = student_map.shape[1:3], teacher_map.shape[1:3]
        channels = student_map.shape[-1], teacher_map.shape[-1]
        if ours == tuple(2 * n for n in theirs):
            self.conv = nnx.Conv(*channels, (3, 3), strides=2, padding=1, rngs=rngs)
        elif theirs == tuple(2 * n for n in ours):
            self.conv = nnx.ConvTranspose(*channels, (4, 4), strides=2, rngs=rngs)
        else:
            # If the student's map is smaller, the loss pools the teacher's.
            kernel = tuple(max(1 + s - t, 1) for s, t in zip(ours, theirs, strict=True))
            self.conv = nnx.Conv(*channels, kernel, padding="VALID", rngs=rngs)
        self.norm = nnx.BatchNorm(channels[1], momentum=0.9, rngs=rngs)

    def __call__(self, student_map: jax.Array) -> jax.Array:
        """Returns the hint for :func:`kdopt.losses.fitnet`."""
        return nnx.relu(self.norm(self.conv(student_map)))


class VidRegressor(nnx.Module):
    """VID's regressors: per stage three 1x1 convolutions and a variance per channel.

    Args:
        student_maps: Example maps of the student, one per stage.
        teacher_maps: Example maps of the teacher, one per stage.
        variance: Initial variance.
        rngs: Random streams of the initial parameters.
    """

    def __init__(
        self,
        student_maps: Sequence[Shaped],
        teacher_maps: Sequence[Shaped],
        *,
        variance: float = 5.0,
        rngs: nnx.Rngs,
    ):
        def layer(inputs, outputs):
            return nnx.Conv(inputs, outputs, (1, 1), use_bias=False, rngs=rngs)

        self.regressors, self.scales = nnx.List([]), nnx.List([])
        # The inverse of softplus, which the loss applies.
        alpha = jnp.log(jnp.expm1(variance - 1e-5))
        for ours, theirs in zip(student_maps, teacher_maps, strict=True):
            width = theirs.shape[-1]
            self.regressors.append(
                nnx.Sequential(
                    layer(ours.shape[-1], width),
                    nnx.relu,
                    layer(width, width),
                    nnx.relu,
                    layer(width, width),
                )
            )
            self.scales.append(nnx.Param(jnp.full(width, alpha)))

    def __call__(
        self, student_maps: Sequence[jax.Array]
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Returns the means and the scales for :func:`kdopt.losses.vid`."""
        pairs = zip(self.regressors, student_maps, strict=True)
        return [regress(x) for regress, x in pairs], [s[...] for s in self.scales]


class OfdConnectors(nnx.Module):
    """OFD's connectors: per stage a 1x1 convolution with BatchNorm, no activation.

    Args:
        student_maps: Example maps of the student, one per stage.
        teacher_maps: Example maps of the teacher, one per stage.
        rngs: Random streams of the initial parameters.
    """

    def __init__(
        self,
        student_maps: Sequence[Shaped],
        teacher_maps: Sequence[Shaped],
        *,
        rngs: nnx.Rngs,
    ):
        self.connectors = nnx.List(
            [
                _conv_norm(ours.shape[-1], theirs.shape[-1], 1, rngs)
                for ours, theirs in zip(student_maps, teacher_maps, strict=True)
            ]
        )

    def __call__(self, student_maps: Sequence[jax.Array]) -> list[jax.Array]:
        """Returns the maps for :func:`kdopt.losses.ofd`."""
        pairs = zip(self.connectors, student_maps, strict=True)
        return [connect(x) for connect, x in pairs]


class ReviewFusion(nnx.Module):
    """ReviewKD's attention-based fusion of stages, from deep to shallow.

    Args:
        student_maps: Example maps of the student from shallow to deep; the pooled
            features may follow as a map ``[b, 1, 1, d]``.
        teacher_maps: Example maps of the teacher, as many as of the student.
        width: Channels of the fused maps; by default as many as the student's last map
            has, but at most 512.
        rngs: Random streams of the initial parameters.
    """

    def __init__(
        self,
        student_maps: Sequence[Shaped],
        teacher_maps: Sequence[Shaped],
        *,
        width: int | None = None,
        rngs: nnx.Rngs,
    ):
        if width is None:
            width = min(512, student_maps[-1].shape[-1])
        self.inputs, self.outputs = nnx.List([]), nnx.List([])
        self.attentions = nnx.List([])
        self.sizes = tuple(x.shape[1:3] for x in teacher_maps)
        for ours, theirs in zip(student_maps, teacher_maps, strict=True):
            self.inputs.append(_conv_norm(ours.shape[-1], width, 1, rngs))
            self.outputs.append(_conv_norm(width, theirs.shape[-1], 3, rngs))
        for _ in student_maps[1:]:
            self.attentions.append(nnx.Conv(2 * width, 2, (1, 1), rngs=rngs))

    def __call__(self, student_maps: Sequence[jax.Array]) -> list[jax.Array]:
        """Returns the maps for :func:`kdopt.losses.hcl`, from shallow to deep."""
        results, deeper = [], None
        for stage in reversed(range(len(student_maps))):
            x = self.inputs[stage](student_maps[stage])
            if deeper is not None:
                deeper = _resize(deeper, x.shape[1:3])
                both = jnp.concatenate([x, deeper], axis=-1)
                share = nnx.sigmoid(self.attentions[stage](both))
                x = x * share[..., :1] + deeper * share[..., 1:]
            deeper = x
            results.append(self.outputs[stage](_resize(x, self.sizes[stage])))
        return results[::-1]


class CrdEmbeddings(nnx.Module):
    """CRD's embeddings: one linear layer for each network.

    Args:
        student_features: Example penultimate features of the student, ``[b, d]``.
        teacher_features: Example penultimate features of the teacher.
        dim: Width of the embeddings.
        rngs: Random streams of the initial parameters.
    """

    def __init__(
        self,
        student_features: Shaped,
        teacher_features: Shaped,
        *,
        dim: int = 128,
        rngs: nnx.Rngs,
    ):
        self.student = nnx.Linear(student_features.shape[-1], dim, rngs=rngs)
        self.teacher = nnx.Linear(teacher_features.shape[-1], dim, rngs=rngs)

    def __call__(
        self, student_features: jax.Array, teacher_features: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns both embeddings for :func:`kdopt.losses.crd`."""
        fixed = jax.lax.stop_gradient(teacher_features)
        return self.student(student_features), self.teacher(fixed)


class WidthProjector(nnx.Module):
    """ND's projection to the teacher's width; the identity if the widths agree.

    Args:
        student_features: Example penultimate features of the student, ``[b, d]``.
        teacher_features: Example penultimate features of the teacher.
        rngs: Random streams of the initial parameters and dropout.
    """

    def __init__(
        self, student_features: Shaped, teacher_features: Shaped, *, rngs: nnx.Rngs
    ):
        widths = student_features.shape[-1], teacher_features.shape[-1]
        self.layers = nnx.Sequential()
        if widths[0] != widths[1]:
            self.layers = nnx.Sequential(
                nnx.BatchNorm(widths[0], momentum=0.9, rngs=rngs),
                nnx.Dropout(0.5, rngs=rngs),
                nnx.Linear(*widths, rngs=rngs),
            )

    def __call__(self, student_features: jax.Array) -> jax.Array:
        """Returns the vectors for :func:`kdopt.losses.nd`."""
        return self.layers(student_features)


def _conv_norm(inputs, outputs, kernel, rngs):
    conv = nnx.Conv(inputs, outputs, (kernel, kernel), use_bias=False, rngs=rngs)
    return nnx.Sequential(conv, nnx.BatchNorm(outputs, momentum=0.9, rngs=rngs))


def _resize(x, size):
    """Resizes maps to a height and width by nearest neighbour."""
    if x.shape[1:3] == tuple(size):
        return x
    return jax.image.resize(x, (len(x), *size, x.shape[-1]), "nearest")
