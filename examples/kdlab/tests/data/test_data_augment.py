import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdlab.data import AUGMENTATIONS, normalize
from kdlab.data.augmentation.crops import (
    random_crop_flip,
    random_resized_crop_flip,
    random_rotation_flip,
    random_shift,
)

RANDOM = [name for name in AUGMENTATIONS if name != "none"]


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).integers(1, 256, (64, 9, 12, 3), dtype=np.uint8)
    return jnp.asarray(pixels)


def run(augment, images, key=0, **options):
    """Compiled as a whole: much faster here than operation by operation."""
    return jax.jit(functools.partial(augment, **options))(jax.random.key(key), images)


@functools.cache
def jitted(name):
    return jax.jit(AUGMENTATIONS[name])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_shape_dtype_and_range_are_kept(images, name):
    out = jitted(name)(jax.random.key(0), images)
    assert (out.shape, out.dtype) == (images.shape, jnp.uint8)


@pytest.mark.parametrize("name", RANDOM)
def test_the_key_decides_everything(images, name):
    first, again, other = (jitted(name)(jax.random.key(k), images) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", RANDOM)
def test_images_of_a_batch_are_treated_differently(images, name):
    same = jnp.broadcast_to(images[:1], images.shape)
    out = np.asarray(jitted(name)(jax.random.key(0), same))
    assert len({image.tobytes() for image in out}) > 20


def shifted(image, dy, dx):
    """Brute force: cut a window out of the padded image."""
    pad = max(abs(dy), abs(dx))
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    return padded[pad + dy : pad + dy + height, pad + dx : pad + dx + width]


def test_a_crop_is_a_window_of_the_padded_image_mirrored_or_not(images):
    out = np.asarray(run(random_crop_flip, images, padding=2))
    shifts, flips = set(), 0
    for image, result in zip(np.asarray(images), out, strict=True):
        matches = [
            (dy, dx, flip)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            for flip in (1, -1)
            if np.array_equal(result, shifted(image, dy, dx)[:, ::flip])
        ]
        assert len(matches) == 1
        shifts.add(matches[0][:2])
        flips += matches[0][2] == -1
    # 64 draws of 25 shifts: expect 23 to occur.
    assert len(shifts) > 15
    assert {dy for dy, _ in shifts} == {dx for _, dx in shifts} == set(range(-2, 3))
    # Binomial with standard deviation 4.
    assert 16 <= flips <= 48


def test_a_shift_is_not_mirrored(images):
    out = np.asarray(run(random_shift, images, max_shift=1))
    for image, result in zip(np.asarray(images), out, strict=True):
        windows = [shifted(image, dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        assert any(np.array_equal(result, window) for window in windows)


@pytest.mark.parametrize(
    "augment",
    [
        functools.partial(random_shift, max_shift=0, flip=True),
        functools.partial(random_crop_flip, padding=0),
        functools.partial(random_rotation_flip, degrees=0.0),
    ],
)
def test_without_strength_only_the_flip_is_left(images, augment):
    out = np.asarray(run(augment, images))
    kept = 0
    for image, result in zip(np.asarray(images), out, strict=True):
        same = np.array_equal(result, image)
        assert same or np.array_equal(result, image[:, ::-1])
        kept += same
    assert 16 <= kept <= 48


def test_a_symmetric_image_does_not_show_the_flip(images):
    symmetric = jnp.concatenate([images, images[:, :, ::-1]], axis=2)
    out = run(random_shift, symmetric, max_shift=0, flip=True)
    np.testing.assert_array_equal(out, symmetric)


def test_a_quarter_turn_is_that_of_numpy():
    square = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    # Uniform in [-90, 90] degrees: take the draws themselves from the extremes.
    angles = jnp.linspace(-1, 1, 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.random, "uniform", lambda *_, **__: angles[:, None, None])
        out = run(random_rotation_flip, jnp.asarray(square), degrees=90)
    for i, turns in ((0, -1), (63, 1)):
        turned = [np.rot90(square[i], k=turns * s) for s in (1, -1)]
        candidates = [turn[:, ::f] for turn in turned for f in (1, -1)]
        assert any(np.array_equal(out[i], c) for c in candidates)


def test_a_rotation_leaves_a_disc_alone():
    y, x = np.mgrid[:33, :33] - 16
    disc = np.where(y**2 + x**2 < 12**2, 200, 0).astype(np.uint8)
    batch = jnp.broadcast_to(jnp.asarray(disc)[None, :, :, None], (8, 33, 33, 1))
    out = run(random_rotation_flip, batch, degrees=20.0)
    border = (np.hypot(y, x) > 11) & (np.hypot(y, x) < 13)
    np.testing.assert_array_equal(
        out[:, ~border], np.broadcast_to(disc[~border], (8, (~border).sum()))[..., None]
    )


def test_a_whole_crop_is_the_image_or_its_mirror(images):
    square = images[:, :, :9]
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    out = np.asarray(run(random_resized_crop_flip, square, **whole))
    for image, result in zip(np.asarray(square), out, strict=True):
        assert np.array_equal(result, image) or np.array_equal(result, image[:, ::-1])


def test_resizing_a_ramp_gives_the_ramp_of_the_crop():
    size = 32
    ramp = jnp.arange(size, dtype=jnp.uint8) * 7
    images = jnp.broadcast_to(ramp[None, None, :, None], (64, size, size, 1))
    out = np.asarray(run(random_resized_crop_flip, images, scale=(0.25, 0.25))).astype(
        np.int64
    )
    assert (out == out[:, :1]).all()  # constant along the other axis
    slopes = np.abs(np.diff(out[:, 0, 2:-2, 0], axis=1)).mean(axis=1) / 7
    # The crop is half the side times the square root of the ratio, in [3/4, 4/3].
    assert (slopes > 0.5 * np.sqrt(3 / 4) - 0.02).all()
    assert (slopes < 0.5 * np.sqrt(4 / 3) + 0.02).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_normalize_is_the_equation(images, dtype):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    out = normalize(images, mean, std, dtype)
    assert out.dtype == dtype
    expected = (np.asarray(images) / 255 - np.array(mean)) / np.array(std)
    tolerance = 1e-5 if dtype == jnp.float32 else 1e-2
    np.testing.assert_allclose(
        out.astype(jnp.float32), expected, rtol=tolerance, atol=tolerance
    )
