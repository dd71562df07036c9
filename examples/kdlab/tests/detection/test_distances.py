"""Distillation between detectors: golden values, guards, orthogonal projectors."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kdopt
from _detection import golden_targets
from _vidt import GOLDEN, golden_batch, golden_vidt
from kdlab.detection.losses.criterion import detection_losses
from kdlab.detection.losses.distances import (
    init_projectors,
    make_orthogonal,
    standardized_distance,
    token_matching,
)
from kdlab.models.vidt import Detections, NeckInput
from kdlab.models.vidt.masks import resize_mask

pytestmark = pytest.mark.usefixtures("standard")

DISTANCES = {
    "token_matching": token_matching,
    "vkd": lambda a, b: standardized_distance(
        a,
        b,
        jnp.stack([jnp.eye(a.body_det.shape[-1], dtype=a.body_det.dtype)] * 6),
        group=None,
    ),
}


def random_outputs(seed, images=4, width=8, scale=1.0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(scale * rng.normal(size=shape), jnp.float32)

    maps = tuple(draw(images, side, side, width) for side in (4, 3, 2, 1))
    return Detections(
        None, None, maps, draw(images, 5, width), draw(2, images, 5, width)
    )


@pytest.mark.parametrize("name", DISTANCES)
def test_gradients_are_finite_where_student_and_teacher_agree(name):
    """Also where all tokens are zero, whose norms and deviations are."""
    compiled = jax.jit(jax.value_and_grad(DISTANCES[name], (0, 1)))
    for outputs in (random_outputs(0), random_outputs(0, scale=0.0)):
        value, grads = compiled(outputs, outputs)
        assert abs(value) < 1e-6
        for leaf in jax.tree.leaves(grads):
            np.testing.assert_allclose(leaf, 0, atol=1e-6)
    _, (student, teacher) = compiled(random_outputs(0), random_outputs(1))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(student))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(teacher))


def test_token_matching_weights_the_neck_by_its_levels():
    """Every token at the distance 2: four scales, body, and two levels of neck."""
    student = random_outputs(0)
    teacher = jax.tree.map(lambda x: x + 2 * np.eye(8, dtype=np.float32)[0], student)
    found = jax.jit(token_matching)(student, teacher)
    np.testing.assert_allclose(found, np.sqrt(2.0 * (4 + 1 + 2)), rtol=1e-5)


@pytest.fixture(scope="module")
def by_group():
    """VkD's distance with identical projectors, by the group of images."""
    eye = jnp.stack([jnp.eye(8)] * 6)

    @functools.partial(jax.jit, static_argnames="group")
    def distance(student, teacher, group=None):
        return standardized_distance(student, teacher, eye, group=group)

    return distance


def test_scale_and_shift_of_the_channels_are_removed(by_group):
    student, teacher = random_outputs(0), random_outputs(1)
    moved = jax.tree.map(lambda x: 3 * x + 5, student)
    found = [by_group(one, teacher) for one in (student, moved)]
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_groups_are_standardised_by_themselves(by_group):
    """The distance of a batch is the mean over groups that were batches themselves."""
    student, teacher = random_outputs(0), random_outputs(1)

    def half(outputs, i):
        rows = np.array([2 * i, 2 * i + 1])
        part = jax.tree.map(lambda x: x[rows], outputs)
        return part._replace(neck_det=outputs.neck_det[:, rows])

    parts = [by_group(half(student, i), half(teacher, i)) for i in (0, 1)]
    found = by_group(student, teacher, group=2)
    np.testing.assert_allclose(found, np.mean(parts), rtol=1e-5)
    assert abs(by_group(student, teacher) - found) > 1e-3
    with pytest.raises(ValueError, match=r"4 images.*groups of 3.*--batch-size"):
        by_group(student, teacher, group=3)


def test_channels_that_are_constant_teach_nothing(by_group):
    """Rounding is not scaled up to the size of other channels, nor is its gradient."""
    student, teacher = random_outputs(0), random_outputs(1)

    def flatten(outputs, seed):
        noise = np.random.default_rng(seed).normal(size=(4, 1, 1, 8))
        coarse = jnp.asarray(1 + 1e-6 * noise, jnp.float32)
        return outputs._replace(patch_tokens=(*outputs.patch_tokens[:3], coarse))

    half_flat = by_group(student, flatten(teacher, 2))
    value, grads = jax.jit(jax.value_and_grad(DISTANCES["vkd"]))(
        flatten(student, 3), flatten(teacher, 2)
    )
    np.testing.assert_allclose(value, half_flat, rtol=1e-6)
    assert value < by_group(student, teacher)
    np.testing.assert_array_equal(grads.patch_tokens[3], 0)


def test_projectors_are_orthogonal_whatever_is_learned():
    skew, base = init_projectors(jax.random.key(0), 8)
    np.testing.assert_allclose(make_orthogonal(skew, base), base, atol=1e-6)
    learned = skew + jax.random.normal(jax.random.key(1), skew.shape)
    for matrix in make_orthogonal(learned, base):
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(8), atol=1e-5)


@pytest.mark.slow
def test_gradients_of_the_tiny_vidt_are_those_of_the_reference(x64):
    """Values, and Gram matrices over all parameters but the heads, and at the neck."""
    wide = dataclasses.replace(GOLDEN, embed=48)
    student = golden_vidt(param_dtype=jnp.float64)
    teacher = golden_vidt(wide, offset=1000, param_dtype=jnp.float64)
    images, mask = golden_batch()
    targets = golden_targets()
    graphdef, params = nnx.split(student)
    known = jax.jit(lambda: teacher(images, mask))()

    def encode(params):
        return tuple(nnx.merge(graphdef, params).encode(images, mask)[:3])

    def heads(params, neck):
        masks = tuple(resize_mask(mask, scale.shape[1:3]) for scale in neck[0])
        found = nnx.merge(graphdef, params).decode(NeckInput(*neck, masks))
        task = detection_losses(found.logits, found.boxes, targets).total
        distances = (DISTANCES[name](found, known) for name in DISTANCES)
        return task, *(4 * distance for distance in distances)

    def both(params):
        neck = encode(params)
        at_neck = kdopt.value_and_grads(lambda z: heads(params, z))(neck)[1]
        values, grads = kdopt.value_and_grads(lambda p: heads(p, encode(p)))(params)
        # the reference leaves the positions out
        return values, grads, kdopt.gram(tuple(grad[:2] for grad in at_neck))

    values, grads, at_neck = jax.jit(both)(params)
    np.testing.assert_allclose(
        values, [307.1012991539647, 35.54443556829, 4 * 4.054634922717587], rtol=1e-7
    )

    def is_head(path):
        return any(f"{kind}_embed" in str(path) for kind in ("class", "bbox"))

    kept = tuple(
        [x for path, x in jax.tree.leaves_with_path(tree) if not is_head(path)]
        for tree in grads
    )
    gram = np.asarray(kdopt.gram(kept))
    expected = {
        (0, 0): 22287976.99916,
        (1, 1): 7190.73625358,
        (0, 1): 74372.29404124,
        (2, 2): 41722.66708595,
        (0, 2): 127880.72693236,
    }
    for place, value in expected.items():
        np.testing.assert_allclose(gram[place], value, rtol=1e-6, err_msg=str(place))
    found = at_neck[0, 0], at_neck[1, 1], at_neck[0, 1]
    expected_at_neck = 346.31244127, 0.02956867335, 0.98280886005
    np.testing.assert_allclose(found, expected_at_neck, rtol=1e-6)
