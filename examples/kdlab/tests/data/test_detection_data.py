"""Images with boxes: scenes, COCO's files, TFDS, augmentation, padding, streams."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdlab.data.detection.augment import Augmentation, cut, mirror, resize
from kdlab.data.detection.coco_files import CocoFiles, annotation_file
from kdlab.data.detection.coco_tfds import COCO_IDS, CocoTfds
from kdlab.data.detection.scenes import SceneConfig, draw_scene, write_scenes
from kdlab.data.detection.source import Objects, Subset
from kdlab.data.detection.stream import Shape, eval_stream, train_stream


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return SceneConfig(
        folder, "digits", train=6, val=3, side=48, smallest=12, largest=24
    )


@pytest.fixture(scope="module")
def scenes(config):
    write_scenes(config, lambda done: None)
    return CocoFiles(config.folder, "train")


def overlap(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    area = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return np.prod(np.maximum(sides, 0)) / min(area)


def test_boxes_of_scenes_enclose_the_digits(config):
    """A bright image on a dark canvas: it fills the box, and nothing beside it."""
    images = np.zeros((1, 28, 28), np.uint8)
    images[0, 5:20, 8:17] = 255
    one = dataclasses.replace(config, objects=1)
    for seed in range(5):
        scene = draw_scene(images, np.array([7]), one, np.random.default_rng((seed, 0)))
        ((left, top, width, height),) = scene.boxes
        inside = np.zeros_like(scene.pixels, bool)
        inside[top : top + height, left : left + width] = True
        bright = scene.pixels > 140
        assert bright[inside].mean() > 0.98 and bright[~inside].mean() < 0.02
        assert scene.areas == [width * height] and scene.labels == [7]
        assert 12 <= max(width, height) <= 24


def test_objects_of_scenes_hardly_overlap(scenes):
    for index in range(len(scenes)):
        boxes = scenes[index].objects.boxes
        assert 1 <= len(boxes) <= 3
        assert boxes.min() >= 0 and boxes.max() <= 48
        pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
        assert all(overlap(a, b) <= 0.15 + 1e-6 for a, b in pairs)


def test_the_seed_decides_the_files(config, scenes, tmp_path):
    again = dataclasses.replace(config, folder=tmp_path / "again")
    write_scenes(again, lambda done: None)
    for path in sorted(config.folder.rglob("*.png")):
        same = again.folder / path.relative_to(config.folder)
        assert path.read_bytes() == same.read_bytes()
    assert annotation_file(config.folder, "val").read_text() == (
        annotation_file(again.folder, "val").read_text()
    )
    other = dataclasses.replace(config, seed=1, folder=tmp_path / "other")
    write_scenes(other, lambda done: None)
    assert CocoFiles(other.folder, "train")[0].data != scenes[0].data
    with pytest.raises(ValueError, match=r"other settings.*--folder"):
        write_scenes(dataclasses.replace(config, seed=1), lambda done: None)


def test_validation_scenes_show_other_digits(config, monkeypatch):
    """Training images are 0 and 1, those of the test part 8 and 9."""
    from kdlab.data import load

    source = load("digits")
    fake = dataclasses.replace(
        source,
        train_labels=source.train_labels % 2,
        test_labels=source.test_labels % 2 + 8,
    )
    monkeypatch.setattr("kdlab.data.detection.scenes.load", lambda *a, **k: fake)
    other = dataclasses.replace(config, folder=config.folder / "marked")
    write_scenes(other, lambda done: None)
    labels = [
        {int(x) for i in range(len(part)) for x in part[i].objects.labels}
        for part in (CocoFiles(other.folder, split) for split in ("train", "val"))
    ]
    assert labels[0] <= {0, 1} and labels[1] <= {8, 9}


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="--smallest <= --largest"):
        SceneConfig(side=32, largest=40)


ANNOTATIONS = [
    {"bbox": [10, 20, 30, 40], "iscrowd": 0, "category_id": 3},
    {"bbox": [-5, 0, 20, 10], "iscrowd": 0, "category_id": 90},
    {"bbox": [0, 0, 50, 50], "iscrowd": 1, "category_id": 1},
    {"bbox": [0, 0, 0, 10], "iscrowd": 0, "category_id": 1},
]
SIZE = 100, 80  # width, height
KEPT = [[10, 20, 40, 60], [0, 0, 15, 10]]


def jpeg(size, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def write_coco(folder, annotations=ANNOTATIONS):
    path = annotation_file(folder, "val2017")
    path.parent.mkdir(parents=True)
    (folder / "val2017").mkdir()
    (folder / "val2017" / "a.jpg").write_bytes(jpeg(SIZE))
    rows = [
        {"id": i, "image_id": 42, "area": 7.0, **x} for i, x in enumerate(annotations)
    ]
    image = {"id": 42, "width": SIZE[0], "height": SIZE[1], "file_name": "a.jpg"}
    record = {"images": [image], "annotations": rows, "categories": [{"id": 90}]}
    path.write_text(json.dumps(record))
    return path


def test_crowds_and_boxes_without_area_are_not_trained_on(tmp_path):
    write_coco(tmp_path)
    source = CocoFiles(tmp_path, "val2017")
    objects = source[0].objects
    np.testing.assert_array_equal(objects.boxes, KEPT)
    assert objects.labels.tolist() == [3, 90]
    assert len(source.ground_truth()["annotations"]) == 4  # evaluation needs the crowd
    assert source.image_id(0) == 42


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"instances_val2017.json.*make-scenes"):
        CocoFiles(tmp_path, "val2017")
    path = write_coco(tmp_path)
    record = json.loads(path.read_text())
    del record["annotations"][1]["area"]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"entry 1 of 'annotations' has no 'area'"):
        CocoFiles(tmp_path, "val2017")


def prepare_tfds(folder):
    """COCO as TFDS prepares it, with one image, without its builder's TensorFlow."""
    import tensorflow_datasets as tfds

    names = [f"class {i}" for i in COCO_IDS]
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "image/filename": tfds.features.Text(),
            "image/id": np.int64,
            "objects": tfds.features.Sequence(
                {
                    "area": np.int64,
                    "bbox": tfds.features.BBoxFeature(),
                    "id": np.int64,
                    "is_crowd": np.bool_,
                    "label": tfds.features.ClassLabel(names=names),
                }
            ),
        }
    )
    width, height = SIZE
    objects = [
        {
            "area": 7,
            "bbox": tfds.features.BBox(
                ymin=max(y, 0) / height,
                xmin=max(x, 0) / width,
                ymax=(y + h) / height,
                xmax=(x + w) / width,
            ),
            "id": 1,
            "is_crowd": bool(one["iscrowd"]),
            "label": COCO_IDS.index(one["category_id"]),
        }
        for one in ANNOTATIONS
        for x, y, w, h in [one["bbox"]]
    ]
    example = {
        "image": io.BytesIO(jpeg(SIZE)),
        "image/filename": "a.jpg",
        "image/id": 42,
        "objects": objects,
    }

    # The name is taken if another test has opened the builders of TFDS.
    class Coco(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.1.0")
        pkg_dir_path = folder

        def _info(self):
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, manager):
            return {"validation": iter([("a", example)])}

        def _generate_examples(self):
            raise AssertionError

    builder = Coco(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


def test_tfds_holds_the_same_objects(tmp_path):
    source = CocoTfds(prepare_tfds(tmp_path), "validation")
    objects = source[0].objects
    np.testing.assert_allclose(objects.boxes, KEPT, atol=1e-4)
    assert objects.labels.tolist() == [3, 90]
    truth = source.ground_truth()
    assert [x["iscrowd"] for x in truth["annotations"]] == [0, 0, 1, 0]
    assert [x["category_id"] for x in truth["annotations"]] == [3, 90, 1, 1]
    assert truth["images"] == [{"id": 42, "width": 100, "height": 80}]
    assert len(truth["categories"]) == 80 and truth["categories"][-1]["id"] == 90
    with pytest.raises(ValueError, match="no split 'train'"):
        CocoTfds(source._folder, "train")


def marked(size=(60, 40), box=(12, 8, 30, 20)):
    """A black image whose only object is white."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    objects = Objects(np.array([box], np.float32), np.array([5], np.int32))
    return Image.fromarray(pixels), objects


def bounds(image):
    bright = np.asarray(image)[..., 0] > 127
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize(
    "change",
    [
        mirror,
        lambda image, objects: resize(image, objects, 80, None),
        lambda image, objects: resize(image, objects, 80, 64),
        lambda image, objects: cut(image, objects, (20, 4, 50, 36)),
    ],
)
def test_boxes_follow_the_pixels(change):
    image, objects = change(*marked())
    np.testing.assert_allclose(objects.boxes[0], bounds(image), atol=1.5)
    assert objects.labels.tolist() == [5]


def test_augmented_boxes_follow_the_pixels():
    augment = Augmentation(
        sides=(48, 64), longest=112, crop_sides=(40, 60), crop=(32, 56)
    )
    image, objects = marked((80, 60), (30, 20, 56, 44))
    seen = set()
    for seed in range(30):
        found, boxes = augment(image, objects, np.random.default_rng(seed))
        assert found.width % 16 == 0 and found.height % 16 == 0
        assert max(found.size) <= 112
        seen.add(found.size)
        if len(boxes.labels):
            np.testing.assert_allclose(boxes.boxes[0], bounds(found), atol=2.5)
    assert len(seen) >= 4


def test_cut_leaves_out_what_it_loses():
    image, objects = cut(*marked(), (40, 0, 60, 40))
    assert objects.boxes.shape == (0, 4) and image.size == (20, 40)


def test_the_sizes_of_the_recipe():
    """Shorter sides in steps of 16, floored; the longer side wins."""
    assert Augmentation().sides == tuple(range(480, 801, 16))
    image, objects = Image.new("RGB", (1000, 300)), marked()[1]
    assert resize(image, objects, 800, 1333)[0].size == (1328, 400 - 400 % 16)


def test_a_stream_continues_where_it_stopped(scenes):
    shape = Shape(32, 3)
    whole = train_stream(scenes, shape, batch_size=4, seed=3)
    batches = [next(whole) for _ in range(4)]
    rest = train_stream(scenes, shape, batch_size=4, seed=3, start=2)
    for expected in batches[2:]:
        found = next(rest)
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.indices, expected.indices)
    order = np.concatenate([batch.indices for batch in batches])
    assert sorted(order[:6]) == list(range(6))


def test_padding_is_marked_and_boxes_are_fractions(scenes):
    """48 pixels are padded to 64; boxes remain fractions of the 48."""
    (batch,) = eval_stream(scenes, Shape(32, 2), batch_size=6)
    assert batch.images.shape == (6, 64, 64, 3)
    assert batch.mask[:, 48:].all() and batch.mask[:, :, 48:].all()
    assert not batch.mask[:, :48, :48].any() and not batch.images[:, 48:].any()
    for i in range(6):
        boxes = scenes[i].objects.boxes
        count = min(len(boxes), 2)
        assert batch.targets.present[i].sum() == count
        centers, sides = np.split(batch.targets.boxes[i, :count] * 48, 2, axis=1)
        np.testing.assert_allclose(centers - sides / 2, boxes[:count, :2], atol=1e-4)
        np.testing.assert_allclose(centers + sides / 2, boxes[:count, 2:], atol=1e-4)


def test_every_image_is_evaluated_once(scenes):
    batches = list(eval_stream(scenes, Shape(32, 3), batch_size=4))
    indices = np.concatenate([batch.indices for batch in batches])
    assert indices.tolist() == [0, 1, 2, 3, 4, 5, -1, -1]
    assert (batches[0].sizes == 48).all()


def test_a_part_has_the_annotations_of_its_images(scenes):
    part = Subset(scenes, 2)
    truth = part.ground_truth()
    assert len(part) == 2 and {x["id"] for x in truth["images"]} == {1, 2}
    assert {x["image_id"] for x in truth["annotations"]} == {1, 2}
    with pytest.raises(ValueError, match="7 images are asked for, but there are 6"):
        Subset(scenes, 7)
