"""The twelve numbers of COCO, by pycocotools."""

import contextlib
import copy
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class CocoMetrics(NamedTuple):
    """The twelve numbers, as fractions; -1 where no object counts.

    Attributes:
        ap: Average precision, mean over overlaps of .50, .55, ..., .95 and classes.
        ap50: The same at an overlap of .50.
        ap75: At .75.
        ap_small: On objects of an area up to 32 x 32.
        ap_medium: From 32 x 32 to 96 x 96.
        ap_large: Above.
        ar1: Average recall with one detection per image.
        ar10: With ten.
        ar100: With a hundred.
        ar_small: With a hundred, on small objects.
        ar_medium: On medium ones.
        ar_large: On large ones.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float


def compute_metrics(
    ground_truth: dict[str, Any],
    results: Sequence[dict[str, Any]],
    *,
    scale: float = 1.0,
) -> CocoMetrics:
    """Evaluates detections.

    Args:
        ground_truth: Images, annotations and categories in the format of COCO.
        results: Detections: ``image_id``, ``category_id``, ``bbox`` (left, top, width,
            height in pixels) and ``score``.
        scale: Factor of the sides that separate small, medium and large objects; 1
            suits images of about 640 pixels, as those of COCO.

    Raises:
        ImportError: If pycocotools is not installed.

    References:
        Lin et al., `Microsoft COCO <https://arxiv.org/abs/1405.0312>`_, ECCV 2014
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = [
        {**one, "id": number, "area": one["bbox"][2] * one["bbox"][3], "iscrowd": 0}
        for number, one in enumerate(results, 1)
    ]
    # It prints what it does, and writes into the annotations.
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _index(COCO(), copy.deepcopy(ground_truth))
        predicted = _index(COCO(), ground_truth | {"annotations": found})
        evaluation = COCOeval(truth, predicted, "bbox")
        small, large, most = 32**2 * scale**2, 96**2 * scale**2, 1e5**2
        areas = [[0, most], [0, small], [small, large], [large, most]]
        evaluation.params.areaRng = areas
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return CocoMetrics(*map(float, np.asarray(evaluation.stats)))


def _index(coco: Any, dataset: dict[str, Any]) -> Any:
    """Gives annotations in memory to an empty ``COCO``."""
    coco.dataset = dataset
    coco.createIndex()
    return coco
