"""Batches reach the steps in the same order from any start, in memory and streamed."""

import numpy as np
import pytest

import _archives
from kdlab.data import batches, open_streamed
from kdlab.data.feed import Feed, Stream, iterate_once
from kdlab.data.split import Split
from kdlab.devices.mesh import make_layout

LAYOUT = make_layout(2)


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    """Returns training and test sets of 11 and 6 images, from files that TFDS wrote."""
    root = tmp_path_factory.mktemp("imagenet")
    _archives.write_imagenet(root, num_train=11, num_validation=6)
    data = open_streamed("imagenet2012", data_dir=root, image_size=16)
    train = Stream(data.train, data.image_size, data.resize, crops=True)
    return train, Stream(data.test, data.image_size, data.resize)


@pytest.fixture(params=["memory", "stream"])
def data(request, streams):
    images = np.random.default_rng(0).integers(0, 256, (11, 16, 16, 3), dtype=np.uint8)
    split = Split(images, np.arange(11, dtype=np.int32))
    return split if request.param == "memory" else streams[0]


def seen(fed):
    """Returns images and labels of a batch, as a step sees them."""
    data = fed.data
    chosen = data.take(fed.indices) if isinstance(data, Split) else data
    return [np.asarray(x) for x in (chosen.images, chosen.labels, fed.weights)]


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(seen(a), seen(b), strict=True):
            np.testing.assert_array_equal(x, y)


def test_an_epoch_goes_on_from_any_step_of_it(data):
    feed = Feed(data, LAYOUT, 4)
    assert feed.steps == 3
    for epoch in (0, 1):
        all_of_it = list(feed.epoch(7, epoch))
        assert len(all_of_it) == 3
        assert_same(Feed(data, LAYOUT, 4).epoch(7, epoch, 2), all_of_it[2:])


def test_epochs_and_seeds_differ(data):
    feed = Feed(data, make_layout(1), 11)
    labels = [
        seen(next(feed.epoch(s, e)))[1].tolist() for s, e in ((0, 0), (0, 1), (1, 0))
    ]
    assert len({tuple(x) for x in labels}) == 3
    assert len({tuple(sorted(x)) for x in labels}) == 1


def test_a_streamed_batch_is_divided_among_the_devices(streams):
    fed = next(Feed(streams[0], LAYOUT, 4).epoch(0, 0))
    assert fed.data.images.shape == (4, 16, 16, 3)
    assert [x.data.shape[0] for x in fed.data.images.addressable_shards] == [2, 2]


def test_evaluation_sees_every_image_once(streams, data):
    batches = list(iterate_once(streams[1], LAYOUT, 4))
    labels = np.concatenate([np.asarray(x["labels"]) for x in batches])
    weights = np.concatenate([np.asarray(x["weights"]) for x in batches])
    assert sorted(labels[weights == 1]) == [500, 501, 502, 503, 504, 505]
    assert (
        sum(np.asarray(x["weights"]).sum() for x in iterate_once(data, LAYOUT, 4)) == 11
    )


def test_repeated_images_in_memory_follow_each_other():
    plain = [x.indices for x in batches(12, 4, seed=0, epoch=1)]
    found = [x.indices for x in batches(12, 4, seed=0, epoch=1, repeats=3)]
    np.testing.assert_array_equal(np.concatenate(found), np.repeat(plain[0], 3))
