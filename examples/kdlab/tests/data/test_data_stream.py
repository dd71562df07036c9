import json

import numpy as np
import pytest

import _archives
from kdlab.data import is_streamed, open_streamed
from kdlab.data.catalogue import open_images
from kdlab.data.images import EncodedImage
from kdlab.data.stream import eval_stream, train_stream


class Numbered:
    """Image i is of the constant brightness i and of class i."""

    mode = "RGB"

    def __init__(self, n, size=(20, 30)):
        self.num_classes = n
        pixels = [np.full((*size, 3), i, np.uint8) for i in range(n)]
        self._files = [_archives.encode(image) for image in pixels]

    def __len__(self):
        return len(self._files)

    def __getitem__(self, index):
        return EncodedImage(self._files[index], int(index))

    def where(self, index):
        return f"image {index}"


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    _archives.write_imagenet(root)
    return root


def train(source, **changes):
    arguments = {"batch_size": 4, "seed": 0, "image_size": 8}
    processes = {"process_index": 0, "process_count": 1}
    return train_stream(source, **{**arguments, **processes, **changes})


def take(iterator, n):
    return [next(iterator) for _ in range(n)]


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def test_a_training_batch_has_its_shape_and_types(imagenet):
    source = open_images("imagenet2012", "train", data_dir=imagenet)
    batch = next(train(source))
    assert batch.images.shape == (4, 8, 8, 3)
    assert batch.images.dtype == np.uint8
    assert (batch.labels.dtype, batch.weights.dtype) == (np.int32, np.float32)
    assert batch.weights.tolist() == [1] * 4


def test_repeated_images_follow_each_other_with_other_crops():
    source = Numbered(12)
    plain = np.concatenate([x.labels for x in take(train(source), 6)])
    repeated = np.concatenate([x.labels for x in take(train(source, repeats=3), 6)])
    for epoch in (0, 12):
        expected = np.repeat(plain[epoch : epoch + 4], 3)
        np.testing.assert_array_equal(repeated[epoch : epoch + 12], expected)
    later = take(train(source, repeats=3, start=4), 2)
    assert_same(take(train(source, repeats=3), 6)[4:], later)


def test_repeated_images_are_cropped_anew():
    source = Numbered(4)
    noise = np.random.default_rng(0).integers(256, size=(20, 30, 3), dtype=np.uint8)
    source._files = [_archives.encode(noise)] * 4
    batch = next(train(source, repeats=2))
    assert batch.indices[0] == batch.indices[1] != batch.indices[2]
    assert np.any(batch.images[0] != batch.images[1])
    cubic = next(train(source, repeats=2, interpolation="bicubic"))
    assert np.any(cubic.images != batch.images)


def test_images_keep_their_labels_and_epochs_differ():
    batches = take(train(Numbered(12)), 6)
    for batch in batches:
        np.testing.assert_array_equal(batch.images[:, 0, 0, 0], batch.labels)
        np.testing.assert_array_equal(batch.indices, batch.labels)
    first = np.concatenate([batch.labels for batch in batches[:3]])
    second = np.concatenate([batch.labels for batch in batches[3:]])
    assert sorted(first) == sorted(second) == list(range(12))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("stop", [0, 2, 5])  # 3 batches are an epoch
def test_training_resumes_bit_identically(imagenet, stop):
    source = open_images("imagenet2012", "train", data_dir=imagenet)
    iterator = train(source)
    take(iterator, stop)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = take(iterator, 4)
    resumed = train(source)
    resumed.set_state(state)
    assert_same(take(resumed, 4), expected)


@pytest.mark.parametrize("start", [1, 4])
def test_a_stream_begins_anywhere(imagenet, start):
    source = open_images("imagenet2012", "train", data_dir=imagenet)
    whole = take(train(source), start + 2)
    assert_same(take(train(source, start=start), 2), whole[start:])
    halves = {"process_index": 1, "process_count": 2, "batch_size": 2}
    whole = take(train(source, **halves), start + 2)
    assert_same(take(train(source, start=start, **halves), 2), whole[start:])


def test_crops_depend_on_the_seed():
    gradient = np.arange(32, dtype=np.uint8)[:, None, None] * 8
    source = Numbered(4)
    pixels = np.ascontiguousarray(np.broadcast_to(gradient, (32, 32, 3)))
    source._files = [_archives.encode(pixels)] * 4
    images = [next(train(source, seed=seed)).images for seed in (0, 0, 1)]
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    assert len({image.tobytes() for image in images[0]}) == 4


@pytest.mark.parametrize(("size", "box"), [((4, 90), (4, 5)), ((90, 4), (5, 4))])
def test_where_no_box_fits_it_is_the_middle(size, box):
    """Boxes of the whole area and a ratio near 1 do not fit into a stripe."""
    height, width = size
    pixels = np.zeros((*size, 3), np.uint8)
    top, left = (height - box[0]) // 2, (width - box[1]) // 2
    pixels[top : top + box[0], left : left + box[1]] = 255
    source = Numbered(1)
    source._files = [_archives.encode(pixels)]
    images = next(train(source, batch_size=1, scale=(1, 1))).images
    assert images.min() == 255


def test_half_of_the_training_images_are_mirrored():
    ramp = np.arange(40, dtype=np.uint8)[None, :, None] * 6
    source = Numbered(64)
    pixels = np.ascontiguousarray(np.broadcast_to(ramp, (40, 40, 3)))
    source._files = [_archives.encode(pixels)] * 64
    images = next(train(source, batch_size=64)).images.astype(np.int64)
    mirrored = np.sum(images[:, 0, 0, 0] > images[:, 0, -1, 0])
    assert 16 <= mirrored <= 48  # binomial with standard deviation 4


def test_processes_share_an_epoch_without_overlap():
    source = Numbered(12)
    parts = [
        np.concatenate(
            [
                batch.labels
                for batch in take(train(source, process_index=i, process_count=3), 1)
            ]
        )
        for i in range(3)
    ]
    assert sorted(np.concatenate(parts)) == list(range(12))
    whole = np.concatenate([batch.labels for batch in take(train(source), 3)])
    np.testing.assert_array_equal(np.stack(parts, axis=1).ravel(), whole)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_evaluation_sees_every_image_once(count):
    source = Numbered(11)
    seen, steps = [], set()
    for index in range(count):
        batches = list(
            eval_stream(
                source,
                batch_size=2,
                image_size=7,
                resize=8,
                process_index=index,
                process_count=count,
            )
        )
        steps.add(len(batches))
        for batch in batches:
            assert batch.images.shape == (2, 7, 7, 3)
            seen += batch.labels[batch.weights == 1].tolist()
            np.testing.assert_array_equal(batch.indices, batch.labels)
    assert sorted(seen) == list(range(11))
    assert len(steps) == 1  # or the processes would wait for each other forever


def test_evaluation_cuts_out_the_middle():
    # 64 x 96: the shorter side to 32, then the middle 16 of 32 x 48.
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[16:48, 32:64] = 255
    source = Numbered(1)
    source._files = [_archives.encode(pixels)]
    processes = {"process_index": 0, "process_count": 1}
    stream = eval_stream(source, batch_size=1, image_size=16, resize=32, **processes)
    image = next(stream).images[0]
    assert image[1:-1, 1:-1].min() == 255
    assert image.min() > 100  # only the border is blended with its surroundings


def test_training_without_crops_sees_what_evaluation_sees():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    source = Numbered(1)
    source._files = [_archives.encode(pixels)]
    options = {"batch_size": 1, "image_size": 16, "resize": 32}
    processes = {"process_index": 0, "process_count": 1}
    tested = next(eval_stream(source, **options, **processes))
    np.testing.assert_array_equal(next(train(source, **options)).images, tested.images)


def test_a_streamed_set_knows_itself_without_reading(imagenet, tmp_path):
    data = open_streamed("imagenet2012", data_dir=imagenet)
    assert (data.num_train, len(data.test), data.num_classes) == (6, 4, 1000)
    assert (data.image_shape, data.resize) == ((224, 224, 3), 256)
    assert data.mean == (0.485, 0.456, 0.406)
    _archives.write_folders(tmp_path, sizes=(8, 12))
    data = open_streamed(f"stream:folder:{tmp_path}", image_size=7)
    assert (data.image_shape, data.resize, data.num_classes) == ((7, 7, 3), 8, 2)


@pytest.mark.parametrize(
    ("name", "streamed"),
    [
        ("imagenet2012", True),
        ("tfds:imagenet2012", True),
        ("stream:tiny_imagenet", True),
        ("tiny_imagenet", False),
        ("folder:photographs", False),
    ],
)
def test_what_is_streamed(name, streamed):
    assert is_streamed(name) is streamed


def test_one_of_the_two_process_numbers_is_not_enough():
    with pytest.raises(ValueError, match="both process_index and process_count"):
        train_stream(Numbered(2), batch_size=1, seed=0, process_index=0)


@pytest.mark.slow
def test_workers_give_the_same_images(imagenet):
    source = open_images("imagenet2012", "train", data_dir=imagenet)
    assert_same(take(train(source, num_workers=2), 5), take(train(source), 5))
