import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from kdlab.data import DATASETS, batches, corrupt_labels, load, num_batches, subset
from kdlab.data.dataset import channel_moments, stratified_order
from kdlab.data.decoding import decode
from kdlab.data.sources.synthetic import SIZES


@pytest.fixture(scope="module")
def mnist5k():
    return load("mnist5k")


@pytest.fixture(scope="module")
def tiny():
    return load("synthetic-tiny")


def test_mnist5k_is_split_by_class_without_loss_or_overlap(mnist5k):
    assert np.bincount(mnist5k.train_labels).tolist() == [400] * 10
    assert np.bincount(mnist5k.test_labels).tolist() == [100] * 10
    images = np.concatenate([mnist5k.train_images, mnist5k.test_images])
    rows = np.unique(images.reshape(5000, -1), axis=0)
    assert len(rows) == 5000  # the 5,000 images are distinct, so none is in both


def test_mnist5k_has_the_moments_of_mnist(mnist5k):
    # All 60,000 images: 0.1307 and 0.3081.
    np.testing.assert_allclose(mnist5k.mean, 0.1307, atol=2e-3)
    np.testing.assert_allclose(mnist5k.std, 0.3081, atol=2e-3)


def test_the_test_set_of_mnist5k_never_changes(mnist5k):
    # Golden: another split would make results incomparable with earlier ones.
    sums = mnist5k.test_images[:3].sum(axis=(1, 2, 3))
    assert sums.tolist() == [45543, 37723, 36388]


def test_digits_keep_their_17_levels():
    digits = load("digits")
    assert digits.train_images.shape == (1297, 8, 8, 1)
    assert digits.test_images.shape == (500, 8, 8, 1)
    levels = np.unique(digits.train_images)
    assert len(levels) == 17
    assert (levels.min(), levels.max()) == (0, 255)


@pytest.mark.parametrize("name", ["synthetic", "synthetic-cifar100"])
def test_synthetic_sets_have_the_shape_they_stand_for(name):
    data, sizes = load(name), SIZES[name]
    assert data.image_shape == (32, 32, 3)
    assert np.bincount(data.train_labels).tolist() == (
        [sizes.num_train // sizes.num_classes] * sizes.num_classes
    )


def test_synthetic_classes_can_be_told_apart(tiny):
    def flat(images):
        return images.reshape(len(images), -1).astype(np.float64)

    train, test = flat(tiny.train_images), flat(tiny.test_images)
    means = np.stack([train[tiny.train_labels == c].mean(0) for c in range(4)])
    distances = ((test[:, None] - means[None]) ** 2).sum(-1)
    accuracy = np.mean(distances.argmin(1) == tiny.test_labels)
    assert 0.6 < accuracy < 0.95  # chance is 0.25; a network has something left to do


def test_synthetic_images_depend_on_the_seed_alone(tiny):
    np.testing.assert_array_equal(
        tiny.train_images, load("synthetic-tiny").train_images
    )
    assert not np.array_equal(tiny.train_images[:64], tiny.test_images)


def test_moments_are_those_of_the_float_images(tiny):
    mean, std = channel_moments(tiny.train_images)
    scaled = tiny.train_images / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-12)


def test_a_constant_channel_does_not_divide_by_zero():
    assert channel_moments(np.full((2, 3, 3, 1), 255, np.uint8)) == ((1.0,), (1.0,))


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.4, 1.0])
def test_exactly_the_given_share_of_labels_is_drawn_again(rate):
    labels = np.zeros(1000, np.int32)
    # With 10**9 classes no draw repeats the old label.
    noisy = corrupt_labels(labels, rate, 10**9, seed=0)
    assert np.sum(noisy != labels) == round(rate * 1000)
    assert not labels.any()


def test_redrawn_labels_are_uniform():
    noisy = corrupt_labels(np.zeros(100_000, np.int32), 1.0, 4, seed=0)
    # Standard deviation of a share: sqrt(3 / 16 / 100,000) = 0.0014; five of them.
    np.testing.assert_allclose(np.bincount(noisy) / 100_000, 0.25, atol=7e-3)
    assert noisy.dtype == np.int32


@pytest.mark.parametrize("rate", [-0.1, 1.1, 40])
def test_a_rate_that_is_no_fraction_is_refused(rate):
    with pytest.raises(ValueError, match="expected a fraction"):
        corrupt_labels(np.zeros(3, np.int32), rate, 10, seed=0)


@pytest.mark.parametrize("n", [1, 7, 40, 41, 256])
def test_subsets_are_balanced_and_belong_together(tiny, n):
    small = subset(tiny, n, seed=3)
    counts = np.bincount(small.train_labels, minlength=4)
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1
    assert small.test_images is tiny.test_images
    assert (small.mean, small.num_classes) == (tiny.mean, 4)
    where = {image.tobytes(): i for i, image in enumerate(tiny.train_images)}
    for image, label in zip(small.train_images, small.train_labels, strict=True):
        assert tiny.train_labels[where[image.tobytes()]] == label


def test_smaller_subsets_are_contained_in_larger_ones(tiny):
    def rows(n, seed=0):
        return {image.tobytes() for image in subset(tiny, n, seed=seed).train_images}

    assert rows(13) < rows(30) < rows(101)
    assert rows(30) != rows(30, seed=1)


def test_a_subset_that_cannot_be_balanced_is_refused(tiny):
    labels = np.sort(tiny.train_labels)  # 64 of each
    scarce = dataclasses.replace(
        tiny, train_images=tiny.train_images[62:], train_labels=labels[62:]
    )
    counts = np.bincount(subset(scarce, 11, seed=0).train_labels)
    assert counts.tolist() == [2, 3, 3, 3]
    for n in (0, 12, 257):
        with pytest.raises(ValueError, match="smallest of 4 classes has 2"):
            subset(scarce, n, seed=0)


def test_stratified_order_is_a_permutation():
    labels = np.array([2, 2, 2, 2, 0, 1, 1], np.int32)
    order = stratified_order(labels, seed=0)
    assert sorted(order.tolist()) == list(range(7))
    assert sorted(labels[order[:3]].tolist()) == [0, 1, 2]
    assert labels[order[5:]].tolist() == [2, 2]


@pytest.mark.parametrize("drop_last", [False, True])
def test_an_epoch_covers_every_example_once(drop_last):
    epoch = list(batches(23, 5, seed=1, drop_last=drop_last))
    assert len(epoch) == num_batches(23, 5, drop_last=drop_last) == 5 - drop_last
    assert {batch.indices.shape for batch in epoch} == {(5,)}
    indices = np.concatenate([batch.indices for batch in epoch])
    weights = np.concatenate([batch.weights for batch in epoch])
    seen = indices[weights == 1].tolist()
    assert len(seen) == len(set(seen)) == (20 if drop_last else 23)
    assert weights.sum() == len(seen)
    assert all(len(set(batch.indices.tolist())) == 5 for batch in epoch)


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        return [b.indices.tolist() for b in batches(20, 5, seed=seed, epoch=epoch)]

    assert order(0, 3) == order(0, 3)
    assert len({str(order(s, e)) for s in (0, 1) for e in (0, 1)}) == 4
    assert order(None, 3) == order(None, 0) == np.arange(20).reshape(4, 5).tolist()


def test_an_epoch_is_resumed_in_the_middle():
    whole = list(batches(23, 5, seed=1, epoch=2))
    rest = list(batches(23, 5, seed=1, epoch=2, start=3))
    assert len(rest) == 2
    for ours, theirs in zip(rest, whole[3:], strict=True):
        np.testing.assert_array_equal(ours.indices, theirs.indices)
        np.testing.assert_array_equal(ours.weights, theirs.weights)


def test_a_batch_size_of_zero_is_refused():
    with pytest.raises(ValueError, match="batch_size is 0"):
        num_batches(10, 0)


def test_an_unknown_name_gets_the_closest_and_the_list():
    with pytest.raises(ValueError, match="did you mean 'mnist5k'") as error:
        load("mnist-5k")
    assert all(name in str(error.value) for name in DATASETS)
    with pytest.raises(ValueError, match="did you mean 'eurosat'"):
        load("tfds:eurosatt")


def test_images_in_memory_are_resized_as_those_in_files():
    whole, small = load("digits"), load("digits", image_size=4)
    assert small.train_images.shape == (1297, 4, 4, 1)
    assert (small.mean, small.std) == (whole.mean, whole.std)
    np.testing.assert_array_equal(small.test_labels, whole.test_labels)
    file = io.BytesIO()
    Image.fromarray(whole.test_images[3, ..., 0]).save(file, "PNG")
    decoded = decode(file.getvalue(), "L", 4)
    np.testing.assert_array_equal(small.test_images[3], decoded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": np.zeros((256, 16, 16, 3), np.float32)}, "expected uint8"),
        ({"train_labels": np.zeros(255, np.int32)}, r"expected int32\[256\]"),
        ({"train_labels": np.full(256, 4, np.int32)}, "expected 0 to 3"),
        ({"train_images": np.zeros((256, 8, 8, 3), np.uint8)}, "expected one shape"),
    ],
)
def test_arrays_that_disagree_are_refused(tiny, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny, **change)
