"""Turns the outputs of a detector into detections in pixels."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kdlab.data.detection.batch import DetectionBatch
from kdlab.data.detection.source import DetectionSource
from kdlab.detection.losses.boxes import to_corners
from kdlab.models.vidt import Detections

MOST = 100  # detections per image


class Scored(NamedTuple):
    """The best detections of a batch, in falling order of their scores.

    Attributes:
        scores: Probabilities, ``[b, k]``.
        labels: Classes, ``[b, k]``.
        boxes: Corners as fractions of the image, ``[b, k, 4]``.
    """

    scores: Float[Array, "b k"]
    labels: Int[Array, "b k"]
    boxes: Float[Array, "b k 4"]


def select_best(found: Detections, most: int = MOST) -> Scored:
    """Selects the best pairs of query and class of the last level.

    A query may be selected with several classes; duplicates are not suppressed.

    Args:
        found: Outputs of a detector.
        most: Maximum number of detections per image.
    """
    logits, boxes = found.logits[-1], to_corners(found.boxes[-1])
    images, queries, classes = logits.shape
    flat = logits.reshape(images, queries * classes)
    best, places = jax.lax.top_k(flat, min(most, queries * classes))
    chosen = jnp.take_along_axis(boxes, (places // classes)[..., None], axis=1)
    return Scored(jax.nn.sigmoid(best), places % classes, chosen)


def detect(
    predict: Callable[[DetectionBatch], Scored],
    batches: Iterable[DetectionBatch],
    source: DetectionSource,
    note: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Detects the objects of all images.

    Args:
        predict: The detector.
        batches: The images, each once; see
            :func:`kdlab.data.detection.stream.eval_stream`.
        source: Where they are from.
        note: Called with the number of images done, after each batch.

    Returns:
        Detections in the format of COCO.
    """
    results, done = [], 0
    for batch in batches:
        scores, labels, boxes = map(np.asarray, predict(batch))
        for i in np.flatnonzero(batch.indices >= 0):
            image = source.image_id(int(batch.indices[i]))
            height, width = batch.sizes[i]
            corners = boxes[i] * np.array([width, height, width, height], np.float32)
            sides = corners[:, 2:] - corners[:, :2]
            rows = np.concatenate([corners[:, :2], sides], axis=1)
            results += [
                {
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": [float(x) for x in row],
                    "score": float(score),
                }
                for score, label, row in zip(scores[i], labels[i], rows, strict=True)
            ]
            done += 1
        note(done)
    return results
