"""Boxes, matching and losses against values of an independent implementation."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from _detection import golden_targets
from kdlab.data.detection.batch import Targets
from kdlab.detection.losses.boxes import giou, iou, pairwise, to_corners
from kdlab.detection.losses.criterion import detection_losses, focal_loss
from kdlab.detection.losses.matching import match, match_image, matching_cost

pytestmark = pytest.mark.usefixtures("standard")

GOLDEN = Path(__file__).parents[1] / "golden"


def sine(shape, t, s=1.0, m=0.0):
    """The values of which the golden ones are functions."""
    k = np.arange(np.prod(shape), dtype=np.float64)
    return (m + s * np.sin(1.7 * k + 0.9 * t + 0.3)).reshape(shape)


def boxes_of(n, t):
    columns = [sine((n,), t + i, s, m) for i, (s, m) in enumerate(SCALES)]
    return np.stack(columns, axis=-1)


SCALES = [(0.3, 0.5), (0.3, 0.5), (0.15, 0.25), (0.15, 0.25)]
A, B = boxes_of(6, 21), boxes_of(4, 25)
LOGITS = sine((2, 6, 5), 31, 3)
MATCH, COST = jax.jit(match_image), jax.jit(matching_cost)


def test_overlaps_are_those_of_the_reference(x64):
    @jax.jit
    def overlaps(a, b):
        corners = to_corners(a), to_corners(b)
        return pairwise(giou, *corners), pairwise(iou, *corners)

    found, ious = map(np.asarray, overlaps(A, B))
    expected = [
        [-0.70509301, -0.27688218, 0.14642902, -0.5266835],
        [0.50035138, -0.3098836, -0.83027296, -0.61800376],
    ]
    np.testing.assert_allclose(found[[0, 2]], expected, atol=1e-6)
    np.testing.assert_allclose(found[3, 1], 0.57024134, atol=1e-6)
    row = [0, 0.0504995676, 0.2380860863, 0]
    np.testing.assert_allclose(ious[0], row, atol=1e-7)


def test_boxes_without_area_have_finite_gradients(x64):
    flat = jnp.zeros((2, 4))
    for function in (iou, giou):
        total = jax.value_and_grad(lambda x, f=function: f(x, flat).sum())
        value, grad = jax.jit(total)(flat)
        assert np.isfinite(value) and np.isfinite(grad).all()


def test_focal_loss_is_that_of_the_reference(x64):
    hits = np.zeros((2, 6, 5))
    for image, query, label in [(0, 1, 2), (0, 4, 0), (1, 3, 4)]:
        hits[image, query, label] = 1

    def loss(logits):
        return focal_loss(logits, jnp.asarray(hits)).sum() / 3

    value, grad = jax.jit(jax.value_and_grad(loss))(LOGITS)
    np.testing.assert_allclose(value, 12.361984554522483, rtol=1e-10)
    np.testing.assert_allclose(np.sum(grad**2), 1.7627610539801695, rtol=1e-10)


def padded_targets():
    """Two images, with four and two objects of four entries."""
    boxes = np.stack([B, np.concatenate([B[:2], np.zeros((2, 4))])])
    labels = np.array([[2, 0, 3, 2], [4, 1, 0, 0]])
    present = np.array([[True] * 4, [True, True, False, False]])
    return Targets(*map(jnp.asarray, (boxes, labels, present)))


def test_matching_is_that_of_the_reference(x64):
    golden = json.loads((GOLDEN / "det_matching_cost.json").read_text())
    targets = padded_targets()
    boxes = jnp.asarray(np.stack([A, A[::-1]]))
    for image, count in [(0, 4), (1, 2)]:
        rows = LOGITS[image], boxes[image], targets.labels[image], targets.boxes[image]
        cost = COST(*map(jnp.asarray, rows))[:, :count]
        np.testing.assert_allclose(cost, golden[f"cost{image}"], atol=1e-6)
    found = jax.jit(match)(jnp.asarray(LOGITS)[None], boxes[None], targets)
    assert found[0, 0].tolist() == [2, 3, 0, 1]
    assert found[0, 1, :2].tolist() == [3, 2]


@pytest.mark.parametrize("count", [0, 1, 7, 30])
def test_padding_leaves_the_optimum_alone(count):
    """Against SciPy, on the objects alone; padding holds anything finite."""
    rng = np.random.default_rng(count)
    logits = rng.normal(size=(40, 5)).astype(np.float32)
    boxes = rng.uniform(0.1, 0.9, (40, 4)).astype(np.float32)
    targets = rng.uniform(0.1, 0.9, (30, 4)).astype(np.float32)
    targets[count:] = 1e6
    labels, present = rng.integers(5, size=30), np.arange(30) < count
    inputs = [jnp.asarray(x) for x in (logits, boxes, labels, targets)]
    found = np.asarray(MATCH(*inputs, jnp.asarray(present)))
    assert len(set(found.tolist())) == 30
    cost = np.asarray(COST(*inputs))[:, :count]
    rows, columns = linear_sum_assignment(cost)
    total = cost[found[:count], np.arange(count)].sum()
    np.testing.assert_allclose(total, cost[rows, columns].sum(), rtol=1e-4, atol=1e-4)


def test_too_many_objects_are_refused():
    with pytest.raises(ValueError, match=r"30 entries.*only 4 queries.*DET tokens"):
        zeros = jnp.zeros((30, 4)), jnp.zeros(30, bool)
        match_image(
            jnp.zeros((4, 3)), jnp.zeros((4, 4)), jnp.zeros(30, jnp.int32), *zeros
        )


def test_losses_are_divided_by_the_objects_of_the_batch(x64):
    """An image without objects has only the focal loss, and no NaN anywhere."""
    targets = padded_targets()
    boxes = jnp.asarray(np.stack([A, A[::-1]]))[None]
    logits = jnp.asarray(LOGITS)[None]

    @jax.jit
    def losses(present):
        def total(logits, boxes):
            found = detection_losses(logits, boxes, targets._replace(present=present))
            return found.total, found

        return jax.value_and_grad(total, (0, 1), has_aux=True)(logits, boxes)

    there = np.asarray(targets.present)
    (_, both), _ = losses(there)
    alone = [losses(there & row[:, None])[0][1] for row in np.eye(2, dtype=bool)]
    (value, none), grads = losses(np.zeros_like(there))
    assert value > 0 and all(np.isfinite(grad).all() for grad in grads)
    np.testing.assert_array_equal(grads[1], 0)
    np.testing.assert_array_equal([none.l1, none.giou], 0)
    for mixed, first, second in list(zip(both, *alone, strict=True))[1:]:
        np.testing.assert_allclose(mixed, (4 * first + 2 * second) / 6, rtol=1e-10)


def test_losses_of_all_levels_are_those_of_the_reference(x64):
    golden = np.load(GOLDEN / "vidt_tiny.npz")
    predicted = jnp.asarray(golden["logits"]), jnp.asarray(golden["boxes"])
    targets = golden_targets()
    found = jax.jit(detection_losses)(*predicted, targets)
    expected = [
        (73.663884673645, 42.463480442519, 27.434302080665),
        (0.944685900125, 0.891366830220, 0.930398881438),
        (1.063386869125, 1.020394119134, 0.989072362438),
    ]
    # The reference has no floor under areas.
    np.testing.assert_allclose(found, expected, rtol=2e-7)
    np.testing.assert_allclose(found.total, 307.1012991539647, rtol=1e-7)
    queries = jax.jit(match)(*predicted, targets)[-1]
    assert queries[0].tolist() == [6, 17, 4] and queries[1, :2].tolist() == [1, 10]
