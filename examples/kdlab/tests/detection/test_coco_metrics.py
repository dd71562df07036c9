"""The twelve numbers of COCO on a small set with crowds."""

import json
from pathlib import Path

import numpy as np
import pytest

from kdlab.detection.evaluation.coco_metrics import compute_metrics

GOLDEN = Path(__file__).parents[1] / "golden" / "det_coco_tiny.json"


@pytest.fixture(scope="module")
def golden():
    return json.loads(GOLDEN.read_text())


def changed(truth, **values):
    return truth | {"annotations": [x | values for x in truth["annotations"]]}


def test_numbers_are_those_of_the_reference(golden, capsys):
    before = json.dumps(golden)
    found = compute_metrics(golden["gt"], golden["dt"])
    np.testing.assert_allclose(found, golden["stats"], atol=1e-9)
    assert capsys.readouterr().out == ""
    assert json.dumps(golden) == before


def test_crowds_and_areas_count(golden):
    without = compute_metrics(changed(golden["gt"], iscrowd=0), golden["dt"])
    np.testing.assert_allclose(without.ap, 0.633142, atol=1e-6)
    boxes = [
        x | {"area": x["bbox"][2] * x["bbox"][3]} for x in golden["gt"]["annotations"]
    ]
    found = compute_metrics(golden["gt"] | {"annotations": boxes}, golden["dt"])
    expected = golden["stats"][0], 0.517442, 0.629397
    assert (found.ap, found.ap_small, found.ap_medium) == pytest.approx(
        expected, abs=1e-6
    )


def test_nothing_found_is_worth_nothing(golden):
    found = compute_metrics(golden["gt"], [])
    assert (found.ap, found.ar100) == (0, 0)


def test_areas_follow_the_size_of_the_canvas(golden):
    """A set at a quarter of its size, with areas at a quarter of theirs."""

    def shrink(rows):
        return [
            x
            | {"bbox": [side / 4 for side in x["bbox"]]}
            | ({"area": x["area"] / 16} if "area" in x else {})
            for x in rows
        ]

    truth = golden["gt"] | {"annotations": shrink(golden["gt"]["annotations"])}
    found = compute_metrics(truth, shrink(golden["dt"]), scale=0.25)
    np.testing.assert_allclose(found, golden["stats"], atol=1e-9)
    assert compute_metrics(truth, shrink(golden["dt"])).ap_large == -1
