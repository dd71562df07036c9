"""Checkpoints of ViDT and Swin: round trips, and files that do not fit."""

import dataclasses

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from _vidt import GOLDEN, SMALLEST, abstract, golden, golden_tensors, golden_vidt
from kdlab.models.vidt import CONFIGS, weights


def tensors_of(model):
    """A checkpoint in single precision, with all that the published ones hold."""
    tensors = golden_tensors(weights.shapes(model), offset=5)
    tensors |= {
        f"transformer.decoder.{key}": x
        for key, x in tensors.items()
        if key.startswith("bbox_embed")
    }
    index = np.zeros((16, 16))
    tensors["backbone.layers.0.blocks.0.attn.relative_position_index"] = index
    return {key: x.astype(np.float32) for key, x in tensors.items()}


def swin_of(model):
    """What a classifier with the body of a model holds."""
    unused = weights.unused_shapes(model.config)
    tensors = {
        key.removeprefix("backbone."): x
        for key, x in tensors_of(model).items()
        if key.startswith("backbone.")
        and key not in unused
        and not any(part in key for part in ("layers.3.downsample", "det_"))
    }
    wide = model.config.stage_widths[-1]
    return tensors | {
        "norm.weight": np.ones(wide, np.float32),
        "head.weight": np.ones((1000, wide), np.float32),
        "layers.0.blocks.1.attn_mask": np.zeros((4, 16, 16), np.float32),
    }


def saved(tmp_path, tensors):
    path = tmp_path / "vidt.safetensors"
    tensors = {key: np.ascontiguousarray(x) for key, x in tensors.items()}
    safetensors.numpy.save_file(tensors, path)
    return path


def same(before, after):
    return jax.tree.all(jax.tree.map(np.array_equal, before, after))


def test_names_and_shapes_are_the_published_ones():
    shapes = weights.shapes(abstract(GOLDEN))
    assert {key: list(shape) for key, shape in shapes.items()} == golden("names")
    assert len(weights.shapes(abstract(CONFIGS["vidt_nano"]))) == 431


def test_round_trip(tmp_path):
    model = golden_vidt(SMALLEST)
    tensors = tensors_of(model)
    weights.load(saved(tmp_path, tensors), model)
    written = weights.to_torch(model)
    unused = weights.unused_shapes(SMALLEST)
    assert written.keys() == weights.shapes(model).keys()
    for key, tensor in written.items():
        assert tensor.shape == tensors[key].shape
        expected = np.zeros_like(tensor) if key in unused else tensors[key]
        np.testing.assert_array_equal(tensor, expected)
    again = weights.from_torch(abstract(SMALLEST), written)
    assert same(again, nnx.state(model))


def test_layouts():
    """Patch kernels were OIHW, 1x1 convolutions have two axes less here."""
    model = golden_vidt(SMALLEST)
    tensors = weights.to_torch(model)
    kernel = np.asarray(model.backbone.patch_embed.proj.kernel[...])
    tensor = tensors["backbone.patch_embed.proj.weight"]
    assert tensor[5, 2, 1, 3] == kernel[1, 3, 2, 5]
    kernel = np.asarray(model.input_proj[2].linear.kernel[...])
    assert tensors["input_proj.2.0.weight"][3, 5, 0, 0] == kernel[5, 3]
    table = model.backbone.layers[1].blocks[0].attn.relative_position_bias_table
    key = "backbone.layers.1.blocks.0.attn.relative_position_bias_table"
    np.testing.assert_array_equal(tensors[key], table[...])


def test_swin_fills_the_body_alone(tmp_path):
    model = golden_vidt(SMALLEST)
    before, tensors = weights.to_torch(model), swin_of(model)
    weights.load(saved(tmp_path, tensors), model)
    after = weights.to_torch(model)
    changed = {key for key in after if not np.array_equal(before[key], after[key])}
    dropped = {
        *("head.weight", "norm.weight", "layers.0.blocks.1.attn_mask"),
        "layers.0.blocks.0.attn.relative_position_index",
    }
    assert dropped < tensors.keys()
    assert changed == {f"backbone.{key}" for key in tensors.keys() - dropped}
    assert "backbone.layers.2.downsample.reduction.weight" in changed
    assert "backbone.layers.0.blocks.0.norm1.weight" in changed
    for key in changed:
        np.testing.assert_array_equal(after[key], tensors[key[len("backbone.") :]])


@pytest.mark.parametrize("of_swin", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("patch_embed.proj.bias"), "no tensor 'backbone.patch_embed"),
        (lambda x: x.update({"layers.9.x": np.zeros(2)}), "layers.9.x' and 0 others"),
        (
            lambda x: x.update({"patch_embed.norm.bias": np.zeros(3)}),
            r"has shape \(3,\), but backbone.patch_embed.norm.bias needs \(8,\)",
        ),
    ],
)
def test_files_that_do_not_fit_change_nothing(tmp_path, of_swin, change, message):
    model = golden_vidt(SMALLEST)
    before = nnx.state(model)
    if of_swin:
        tensors = swin_of(model)
        change(tensors)
    else:
        tensors = tensors_of(model)
        body = {k[9:]: tensors.pop(k) for k in [*tensors] if k.startswith("backbone.")}
        change(body)
        tensors |= {f"backbone.{key}": x for key, x in body.items()}
    with pytest.raises(ValueError, match=message):
        weights.load(saved(tmp_path, tensors), model)
    assert same(before, nnx.state(model))


def test_another_size_is_refused(tmp_path):
    other = dataclasses.replace(SMALLEST, depths=(1, 2, 2, 1))
    path = saved(tmp_path, tensors_of(abstract(other)))
    with pytest.raises(ValueError, match=r"layers\.2\.blocks\.1.*another model"):
        weights.load(path, golden_vidt(SMALLEST))
