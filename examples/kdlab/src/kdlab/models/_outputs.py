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
        distill_logits: Class scores of the distillation head, ``[b, c]``; None for
            networks without one.
        distill_pooled: The input of the distillation head, ``[b, d]``; None likewise. A
            network that has it maps outputs without logits to those with logits by
            :meth:`Model.classify`.
        tokens: Patch tokens after the last LayerNorm, ``[b, n, d]``; None for
            convolutional networks.
        attention: Attention of the class token to the patches in the last block,
            ``[b, heads, n]``, in float32; None for convolutional networks.

    Notes:
        In networks with a distillation head, ``logits`` are the class head's own scores
        in training mode, and the mean of the scores of both heads in evaluation mode,
        where accuracy is measured. ``distill_logits`` are the distillation head's own
        scores in both modes, so that in evaluation mode the class head's scores are
        ``2 * logits - distill_logits``.
    """

    logits: jax.Array
    features: tuple[jax.Array, ...]
    preactivations: tuple[jax.Array, ...]
    pooled: jax.Array
    distill_logits: jax.Array | None = None
    distill_pooled: jax.Array | None = None
    tokens: jax.Array | None = None
    attention: jax.Array | None = None


class Model(nnx.Module):
    """A network that maps images ``[b, h, w, d]`` to :class:`Outputs`."""

    def __call__(self, x: jax.Array) -> Outputs:
        """Runs the network; in training mode it updates BatchNorm statistics once."""
        raise NotImplementedError

    def classify(self, outputs: Outputs) -> Outputs:
        """Adds the logits to outputs with ``pooled`` and ``distill_pooled``."""
        raise NotImplementedError
