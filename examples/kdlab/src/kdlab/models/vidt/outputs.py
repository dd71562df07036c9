"""What the two halves of a ViDT return."""

from typing import NamedTuple

import jax


class NeckInput(NamedTuple):
    """The input of the neck: the representation that all losses share.

    Attributes:
        scales: The four maps ``[b, h_l, w_l, d]`` at strides 8, 16, 32 and 64,
            projected to the width of the neck.
        det: Projected detection tokens, ``[b, n, d]``.
        positions: Projected positions of the tokens, ``[b, n, d]``, the same for every
            image; repeated so that each array starts with the batch.
        masks: Masks of the four maps, ``[b, h_l, w_l]`` bool, True at padding. The only
            entry that has no gradient: ``neck[:3]`` is the part that has one.
    """

    scales: tuple[jax.Array, ...]
    det: jax.Array
    positions: jax.Array
    masks: tuple[jax.Array, ...]


class Detections(NamedTuple):
    """The predictions of all levels, and the tokens that can be distilled.

    Level 0 is the prediction from the body alone, the last one that of the detector.

    Attributes:
        logits: Class scores, one sigmoid for each class, ``[levels, b, n, c]``.
        boxes: Boxes ``(center x, center y, width, height)`` in units of the unpadded
            image, ``[levels, b, n, 4]``.
        patch_tokens: ``NeckInput.scales``, four maps ``[b, h_l, w_l, d]``.
        body_det: ``NeckInput.det``, ``[b, n, d]``.
        neck_det: Tokens at every level, ``[levels, b, n, d]``; level 0 is ``body_det``.
    """

    logits: jax.Array
    boxes: jax.Array
    patch_tokens: tuple[jax.Array, ...]
    body_det: jax.Array
    neck_det: jax.Array
