"""Round trips of weights, and agreement with networks written in PyTorch."""

import importlib
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from _models import filled
from kdlab.models import weights
from kdlab.models.state_dicts import _dig

SMALL = {"num_classes": 7, "image_shape": (32, 32, 3)}


# Of each family, a tensor by its name in the checkpoints of mdistiller a08d46f and
# torchvision, and its shape there.
@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("resnet8", "layer2.0.downsample.0.weight", (32, 16, 1, 1)),
        ("resnet8x4", "layer1.0.downsample.1.running_mean", (64,)),
        ("resnet18", "layer4.0.shortcut.1.weight", (512,)),
        ("resnet34_imagenet", "layer3.5.conv2.weight", (256, 256, 3, 3)),
        ("resnet50_imagenet", "fc.weight", (7, 2048)),
        ("wrn_16_2", "block3.layer.0.convShortcut.weight", (128, 64, 1, 1)),
        ("vgg13", "block4.3.bias", (512,)),
        ("mobilenet_v1", "model.13.3.weight", (1024, 1024, 1, 1)),
        ("mobilenet_v2", "blocks.6.0.conv.7.running_mean", (160,)),
        ("mobilenet_v2_tiny", "stage7.residual.6.bias", (320,)),
        ("shufflenet_v1", "layer2.7.conv2.weight", (120, 1, 3, 3)),
        ("shufflenet_v2", "layer3.0.conv5.weight", (232, 232, 1, 1)),
    ],
)
def test_round_trip_is_bit_equal(name, key, shape):
    model = filled(name, **SMALL)
    graphdef, state = nnx.split(model)
    tensors = weights.to_torch(name, model)
    assert len(tensors) == len(nnx.to_flat_state(state))
    assert tensors[key].shape == shape
    # PyTorch counts batches beside the statistics; the count has no use here.
    counted = tensors | {"bn1.num_batches_tracked": np.asarray(3)}
    read = weights.from_torch(name, model, counted)
    jax.tree.map(np.testing.assert_array_equal, read, state)
    back = weights.to_torch(name, nnx.merge(graphdef, read))
    assert back.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(back[key], tensor)


def test_layouts():
    """OIHW is HWIO here, and [out, in] is [in, out]."""
    model = filled("resnet8", **SMALL)
    tensors = weights.to_torch("resnet8", model)
    kernel = np.asarray(model.stages[1][0].units[0].conv.kernel[...])
    assert tensors["layer2.0.conv1.weight"][5, 3, 2, 1] == kernel[2, 1, 3, 5]
    matrix = np.asarray(model.classifier.kernel[...])
    assert tensors["fc.weight"][6, 2] == matrix[2, 6]


def test_safetensors(tmp_path):
    model = filled("wrn_16_1", **SMALL)
    path = tmp_path / "wrn.safetensors"
    weights.write_safetensors(path, "wrn_16_1", model)
    tensors = weights.to_torch("wrn_16_1", model)
    for key, tensor in weights.read_torch(path).items():
        np.testing.assert_array_equal(tensor, tensors[key])
    # As DataParallel would have named them.
    wrapped = {f"module.{key}": tensor for key, tensor in tensors.items()}
    safetensors.numpy.save_file(wrapped, path)
    assert weights.read_torch(path).keys() == tensors.keys()


def test_load(tmp_path):
    model = filled("resnet8", **SMALL)
    path = tmp_path / "resnet8.safetensors"
    weights.write_safetensors(path, "resnet8", model)
    loaded = weights.load("resnet8", path, **SMALL)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(loaded), nnx.state(model))


def test_orbax(tmp_path):
    model, other = filled("resnet8", **SMALL), filled("resnet8", seed=1, **SMALL)
    weights.save_orbax(tmp_path / "teacher", model)
    weights.load_orbax(tmp_path / "teacher", other)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(other), nnx.state(model))


def test_errors_name_the_first_mismatch():
    model = filled("resnet8", **SMALL)
    tensors = weights.to_torch("resnet8", model)

    def message(tensors, name="resnet8", model=model):
        with pytest.raises(ValueError) as error:
            weights.from_torch(name, model, tensors)
        return str(error.value)

    missing = {key: value for key, value in tensors.items() if key != "fc.weight"}
    assert "no tensor 'fc.weight' for classifier.kernel of 'resnet8'" in message(
        missing
    )
    other = tensors | {"fc.bias": np.zeros(100, np.float32)}
    assert "'fc.bias' has shape (100,), but classifier.bias" in message(other)
    assert "needs (7,); check num_classes" in message(other)
    more = tensors | {"layer1.9.conv1.weight": np.zeros(1, np.float32)}
    assert "tensor 'layer1.9.conv1.weight' and 0 others have no place" in message(more)
    shallow = message(tensors, "resnet14", filled("resnet14", **SMALL))
    assert "no tensor 'layer1.1" in shallow
    with pytest.raises(ValueError, match="no PyTorch checkpoints of 'mlp' are known"):
        weights.to_torch("mlp", filled("mlp"))


WRAPPED = {
    "as it is": "{}",
    "of DataParallel": "module.{}",
    "of torch.compile": "_orig_mod.{}",
    "of both": "module._orig_mod.{}",
    "of both, the other way": "_orig_mod.module.{}",
    "of both, twice": "module._orig_mod.module._orig_mod.{}",
    "in Lightning": "model.{}",
    "in a distiller": "module.student.{}",
    "of a distiller, compiled": "_orig_mod.student._orig_mod.module.{}",
    "an average": "ema.module.{}",
}


WITH_MODEL = ("in Lightning", "in a distiller")


def wrapped_networks():
    """One network in every wrapping, and one with a part called `model` in a few."""
    for kind in WRAPPED:
        marks = [] if kind in WITH_MODEL else [pytest.mark.slow]
        yield pytest.param("resnet8", kind, id=f"resnet8-{kind}")
        yield pytest.param("mobilenet_v1", kind, id=f"mobilenet_v1-{kind}", marks=marks)


@pytest.mark.parametrize(("name", "kind"), list(wrapped_networks()))
def test_names_are_unwrapped(kind, name, tmp_path):
    tensors = weights.to_torch(name, filled(name, **SMALL))
    path = tmp_path / "wrapped.safetensors"
    wrapped = {WRAPPED[kind].format(key): value for key, value in tensors.items()}
    beside = {}
    if "student" in WRAPPED[kind]:
        beside = {WRAPPED[kind].format("x").replace("student", "teacher"): np.ones(3)}
    if kind == "an average":
        beside = {"ema.n_averaged": np.ones((), np.int64)}
    safetensors.numpy.save_file(wrapped | beside, path)
    loaded = weights.load(name, path, **SMALL)
    expected = nnx.state(filled(name, **SMALL))
    jax.tree.map(np.testing.assert_array_equal, nnx.state(loaded), expected)


@pytest.mark.parametrize(
    "nests",
    [(), ("model",), ("state_dict", "model"), ("student",), ("model_ema",), ("ema",)],
)
def test_nested_weights_are_found(nests):
    tensors = {"fc.weight": np.ones((2, 2)), "fc.bias": np.ones(2)}
    content = tensors
    for nest in nests:
        content = {"epoch": 3, "optimizer": {"lr": 0.1}, nest: content}
    assert _dig(content) is tensors


def test_what_is_no_dictionary_is_refused():
    with pytest.raises(ValueError, match="it holds a list, expected a dictionary"):
        _dig([1, 2])


def test_names_that_become_the_same_are_refused(tmp_path):
    path = tmp_path / "twice.safetensors"
    safetensors.numpy.save_file({"a": np.ones(2), "module.a": np.ones(2)}, path)
    with pytest.raises(ValueError, match=r"twice\.safetensors.*of the same name"):
        weights.read_torch(path)


def test_what_does_not_fit_is_listed_and_counted():
    model = filled("resnet8", **SMALL)
    tensors = weights.to_torch("resnet8", model)
    before = jax.tree.map(np.asarray, nnx.state(model))

    def message(tensors):
        with pytest.raises(ValueError) as error:
            weights.from_torch("resnet8", model, tensors)
        return str(error.value)

    kept = {k: v for k, v in tensors.items() if not k.startswith("layer1")}
    text = message(kept | {"a.weight": np.ones(2), "b.weight": np.ones(2)})
    assert "no tensor 'layer1.0." in text and "nor 9 others (layer1." in text
    assert "tensor 'a.weight' and 1 others have no place" in text and "b.weight" in text
    assert f"{len(tensors) - 10 + 2} tensors, expected {len(tensors)}" in text
    wide = message({k: np.ones((3, *np.shape(v))) for k, v in tensors.items()})
    assert f"and so have {len(tensors) - 1} others" in wide
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_classes": 9}, ["classifier.bias", "(7,)", "needs (9,)"]),
        ({"name": "resnet14"}, ["no tensor 'stages.", "others (stages."]),
        ({"name": "resnet8x4"}, ["no tensor 'stages.0.0.shortcut", "expected"]),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_whole(change, words, tmp_path):
    weights.save_orbax(tmp_path / "teacher", filled("resnet8", **SMALL))
    options = SMALL | {"name": "resnet8"} | change
    other = filled(options.pop("name"), **options)
    before = jax.tree.map(np.asarray, nnx.state(other))
    with pytest.raises(ValueError) as error:
        weights.load_orbax(tmp_path / "teacher", other)
    assert all(word in str(error.value) for word in words), error.value
    assert len(str(error.value)) < 600
    jax.tree.map(np.testing.assert_array_equal, nnx.state(other), before)


@pytest.mark.parametrize("damage", ["metadata", "arrays", "pointers", "no checkpoint"])
def test_a_damaged_checkpoint_is_named(damage, tmp_path):
    path, model = tmp_path / "teacher", filled("mlp")
    weights.save_orbax(path, model)
    files = [file for file in path.rglob("*") if file.is_file()]
    if damage == "metadata":
        (path / "_METADATA").write_bytes(b"{")
    elif damage == "arrays":
        for file in path.glob("ocdbt.process_0/d/*"):
            file.write_bytes(file.read_bytes()[:10])
    elif damage == "pointers":
        for file in files:
            file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    else:
        shutil.rmtree(path)
        path.mkdir()
    with pytest.raises(ValueError, match="teacher cannot be read") as error:
        weights.load_orbax(path, model)
    assert "\n" not in str(error.value)
    assert ("git lfs pull" in str(error.value)) == (damage == "pointers")


def test_without_torch(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"reading .* needs PyTorch"):
        weights.read_torch(tmp_path / "ckpt_epoch_240.pth")
