"""Operations on pixels against Pillow, and the policies that draw them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from kdlab.data import AUGMENTATIONS
from kdlab.data.augmentation import pixels, policies
from kdlab.data.augmentation.erasing import erase

pytestmark = pytest.mark.usefixtures("standard")

SIDE = 40
FILL = tuple(int(x) for x in pixels.FILL)
CUBIC = Image.Resampling.BICUBIC


def photograph(seed=0):
    """Smooth structure, noise, and a plain region."""
    rng = np.random.default_rng(seed)
    y, x, c = np.indices((SIDE, SIDE, 3))
    waves = 120 + 80 * np.sin(0.2 * x + c) * np.cos(0.15 * y)
    noisy = waves + rng.normal(0, 12, waves.shape)
    noisy[:8, :8] = 30
    return np.clip(noisy, 5, 240).astype(np.uint8)


def transform(image, values):
    size = Image.Transform.AFFINE
    return image.transform(image.size, size, values, resample=CUBIC, fillcolor=FILL)


LEVEL, SIGN = 9.0, -1.0
PILLOW = {
    "autocontrast": (ImageOps.autocontrast, 1),
    "equalize": (ImageOps.equalize, 0),
    "invert": (ImageOps.invert, 0),
    "rotate": (lambda x: x.rotate(-27, resample=CUBIC, fillcolor=FILL), 1),
    "posterize": (lambda x: ImageOps.posterize(x, 1), 0),
    "solarize": (lambda x: ImageOps.solarize(x, 26), 0),
    "solarize_add": (
        lambda x: x.point([min(255, i + 99) if i < 128 else i for i in range(256)] * 3),
        0,
    ),
    "color": (lambda x: ImageEnhance.Color(x).enhance(0.19), 1),
    "contrast": (lambda x: ImageEnhance.Contrast(x).enhance(0.19), 1),
    "brightness": (lambda x: ImageEnhance.Brightness(x).enhance(0.19), 1),
    "sharpness": (lambda x: ImageEnhance.Sharpness(x).enhance(0.19), 1),
    "shear_x": (lambda x: transform(x, (1, -0.27, 0, 0, 1, 0)), 1),
    "shear_y": (lambda x: transform(x, (1, 0, 0, -0.27, 1, 0)), 1),
    "translate_x": (lambda x: transform(x, (1, 0, -0.405 * SIDE, 0, 1, 0)), 1),
    "translate_y": (lambda x: transform(x, (1, 0, 0, 0, 1, -0.405 * SIDE)), 1),
}


@pytest.fixture(scope="module")
def applied():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        run = jax.jit(policies.apply)
        image = jnp.asarray(photograph(), jnp.float32)
        return {
            name: np.asarray(run(image, i, LEVEL, SIGN))
            for i, name in enumerate(policies.OPERATIONS)
        }


@pytest.mark.parametrize("name", policies.OPERATIONS)
def test_operation_is_pillows(name, applied):
    operation, tolerance = PILLOW[name]
    expected = np.asarray(operation(Image.fromarray(photograph())), np.float32)
    found = applied[name]
    assert np.abs(found - expected).max() <= tolerance
    assert np.abs(found - photograph()).max() > 20  # it does something


def test_colours_and_blur_of_three_augment():
    image = jnp.asarray(photograph(), jnp.float32)
    picture = Image.fromarray(photograph())
    grey = np.asarray(picture.convert("L"), np.float32)[..., None]
    assert np.abs(pixels.grey(image) - grey).max() <= 1
    brighter = np.asarray(ImageEnhance.Contrast(picture).enhance(1.3), np.float32)
    assert np.abs(pixels.contrast(image, 1.3) - brighter).max() <= 1
    for sigma in (0.5, 2.0):
        blurred = picture.filter(ImageFilter.GaussianBlur(sigma))
        gap = np.abs(pixels.blur(image, sigma) - np.asarray(blurred, np.float32))
        assert gap.mean() < 1 and gap[8:-8, 8:-8].max() < 8


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_policies_vary_images_independently(channels):
    image = jnp.asarray(photograph()[None, ..., :channels])
    images = jnp.tile(image, (24, 1, 1, 1))
    for policy in (policies.rand_augment, policies.three_augment):
        found = jax.jit(policy)(jax.random.key(1), images)
        assert found.shape == images.shape and found.dtype == jnp.uint8
        assert len({x.tobytes() for x in np.asarray(found)}) > 12
    half = jax.jit(policies.rand_augment)(jax.random.key(2), images)
    same = np.mean([np.array_equal(x, image[0]) for x in half])
    assert 0.05 < same < 0.6  # a quarter draws no operation twice


@pytest.mark.slow
def test_policies_are_augmentations_with_and_without_crops():
    images = jnp.asarray(photograph()[None])
    for name in ("rand_augment", "three_augment"):
        found = AUGMENTATIONS[name](jax.random.key(0), images)
        assert found.shape == images.shape


def test_erasing_replaces_one_box_by_noise():
    images = jnp.full((200, 20, 30, 2), 5.0)
    found = np.asarray(erase(jax.random.key(0), images, probability=0.25))
    changed = found != 5
    assert 0.15 < changed.any((1, 2, 3)).mean() < 0.35
    values = found[changed]
    assert abs(values.mean()) < 0.05 and abs(values.std() - 1) < 0.05
    for mask in changed[changed.any((1, 2, 3))][..., 0]:
        rows, columns = mask.any(1), mask.any(0)
        assert mask.sum() == rows.sum() * columns.sum()  # one box
        assert 0.01 < mask.mean() < 0.36
    assert not (
        np.asarray(erase(jax.random.key(0), images, probability=0.0)) != 5
    ).any()
