import dataclasses

import numpy as np
import pytest

from kdlab.data import load, subset
from kdlab.data.teacher_cache import cache_outputs


@pytest.fixture(scope="module")
def data():
    return load("synthetic-tiny")


@pytest.fixture
def cached(data, tmp_path):
    """Calls `cache_outputs`; returns its result and whether it had to compute."""

    def call(value=1.0, **changes):
        calls = []

        def compute():
            calls.append(value)
            return {"logits": np.full((2, 3), value), "features": np.arange(4)}

        arguments = {"params": {"w": np.ones(2)}, "dataset": data, **changes}
        outputs = cache_outputs(compute, cache_dir=tmp_path / "new", **arguments)
        return outputs, bool(calls)

    return call


def test_the_second_call_reads_what_the_first_computed(cached):
    first, computed = cached(1.5)
    again, recomputed = cached(2.5)
    assert (computed, recomputed) == (True, False)
    assert list(again) == list(first)
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value)


def test_another_teacher_or_other_images_compute_again(cached, data):
    cached()
    other_pixels = data.train_images.copy()
    other_pixels[0, 0, 0, 0] ^= 1
    for changes in (
        {"params": {"w": np.array([1.0, 1.0000001])}},
        {"params": {"w": np.ones(2, np.float32)}},
        {"params": {"v": np.ones(2)}},
        {"dataset": subset(data, 40, seed=0)},
        {"dataset": subset(data, 40, seed=1)},
        {"dataset": dataclasses.replace(data, name="other")},
        {"dataset": dataclasses.replace(data, train_images=other_pixels)},
        {"augmentation": "crop_flip", "seed": 0, "epoch": 0},
        {"augmentation": "crop_flip", "seed": 0, "epoch": 1},
        {"augmentation": "crop_flip", "seed": 1, "epoch": 0},
    ):
        assert cached(**changes)[1], changes
        assert not cached(**changes)[1], changes


def test_without_augmentation_seed_and_epoch_do_not_matter(cached):
    cached(seed=0, epoch=0)
    assert not cached(seed=1, epoch=5)[1]


@pytest.mark.parametrize("known", [{}, {"seed": 0}, {"epoch": 0}])
def test_unrepeatable_augmentation_is_refused(cached, known):
    with pytest.raises(ValueError, match="other pixels in each epoch"):
        cached(augmentation="crop_flip", **known)


def test_an_interrupted_write_is_not_read(cached, monkeypatch):
    def half_a_file(file, **_):
        file.write(b"PK")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", half_a_file)
        with pytest.raises(KeyboardInterrupt):
            cached()
    assert cached()[1]
    assert not cached()[1]
