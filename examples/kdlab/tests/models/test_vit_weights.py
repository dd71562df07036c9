"""Files of timm and DeiT: their names, what is beside the weights, and their faults."""

import argparse
import json
import logging
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from _models import filled
from kdlab.models import weights
from kdlab.models.published import describe_other_training

# Of each family, tensors by their names in timm's and VkD's files, and their shapes.
KEYS = {
    "deit_ti_distilled": {
        "cls_token": (1, 1, 192),
        "dist_token": (1, 1, 192),
        "pos_embed": (1, 6, 192),
        "patch_embed.proj.weight": (192, 3, 16, 16),
        "blocks.0.norm2.bias": (192,),
        "blocks.0.attn.qkv.weight": (576, 192),
        "blocks.0.mlp.fc1.weight": (768, 192),
        "head_dist.weight": (7, 192),
    },
    "deit_ti_conv": {
        "conv_embed.conv.0.weight": (64, 3, 7, 7),
        "conv_embed.conv.7.running_var": (64,),
        "conv_embed.proj.bias": (192,),
        "norm.weight": (192,),
    },
    "deit3_b": {"pos_embed": (1, 4, 768), "blocks.0.ls2.gamma": (768,)},
    "cait_s24": {
        "blocks.0.gamma_2": (384,),
        "blocks.0.attn.proj_w.weight": (8, 8),
        "blocks_token_only.0.attn.q.weight": (384, 384),
        "blocks_token_only.0.mlp.fc2.bias": (384,),
        "blocks_token_only.0.gamma_1": (384,),
    },
    "regnety_040": {
        "stem.bn.running_mean": (32,),
        "s1.b1.conv2.conv.weight": (128, 64, 3, 3),
        "s1.b1.se.fc1.weight": (8, 128, 1, 1),
        "s1.b1.se.fc2.bias": (128,),
        "s4.b1.downsample.conv.weight": (1088, 512, 1, 1),
        "s4.b1.conv3.bn.weight": (1088,),
        "head.fc.weight": (7, 1088),
    },
}
SHORT = {"num_classes": 7, "image_shape": (32, 32, 3), "max_blocks": 1}


def small(seed=0, name="deit_ti_distilled", **options):
    return filled(name, seed, **(SHORT | options))


def equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


@pytest.mark.parametrize("name", KEYS)
def test_names_and_round_trip(name):
    model = small(name=name)
    tensors = weights.to_torch(name, model)
    for key, shape in KEYS[name].items():
        assert tensors[key].shape == shape, key
    equal(weights.from_torch(name, model, tensors), nnx.state(model))


def test_layouts():
    model = small()
    tensors = weights.to_torch("deit_ti_distilled", model)
    block = model.trunk.blocks[0]
    matrix = np.asarray(block.attn.qkv.kernel[...])
    assert tensors["blocks.0.attn.qkv.weight"][500, 3] == matrix[3, 500]
    kernel = np.asarray(model.stem.proj.kernel[...])
    assert tensors["patch_embed.proj.weight"][9, 2, 3, 4] == kernel[3, 4, 2, 9]
    np.testing.assert_array_equal(tensors["pos_embed"], model.pos_embed[...])


def write(path, tensors):
    safetensors.numpy.save_file(tensors, path)
    return path


def test_a_student_of_vkd_is_read_without_its_projector(tmp_path):
    model = small(name="deit_ti_conv")
    tensors = weights.to_torch("deit_ti_conv", model)
    path = write(
        tmp_path / "student.safetensors",
        {f"student.module.{key}": value for key, value in tensors.items()}
        | {
            "student.module.projector.weight": np.ones((3, 2)),
            "student.module.conv_embed.conv.1.num_batches_tracked": np.asarray(3),
        },
    )
    equal(nnx.state(weights.load("deit_ti_conv", path, **SHORT)), nnx.state(model))


@pytest.mark.peers
@pytest.mark.parametrize("nest", ["model", "student"])
def test_files_of_torch(nest, tmp_path):
    """As DeiT and VkD save them: nested, with prefix, beside options and optimizer."""
    torch = pytest.importorskip("torch")
    model, path = small(), tmp_path / "checkpoint.pth"
    content = {
        f"module.{key}": torch.nn.Parameter(torch.from_numpy(value.copy()))
        for key, value in weights.to_torch("deit_ti_distilled", model).items()
    }
    content["module.projector.weight"] = torch.ones(3, 2)
    options = argparse.Namespace(lr=5e-4)
    torch.save({nest: content, "args": options, "epoch": 299, "optimizer": {}}, path)
    loaded = weights.load("deit_ti_distilled", path, **SHORT)
    equal(nnx.state(loaded), nnx.state(model))


def test_factors_of_deit3_have_two_names(tmp_path):
    model = small(name="deit3_b")
    tensors = weights.to_torch("deit3_b", model)
    own = {
        key.replace(".ls1.gamma", ".gamma_1").replace(".ls2.gamma", ".gamma_2"): value
        for key, value in tensors.items()
    }
    assert "blocks.0.gamma_1" in own and len(own) == len(tensors)
    equal(weights.from_torch("deit3_b", model, own), nnx.state(model))
    with pytest.raises(ValueError, match=r"'blocks.0.gamma_1' and 0 others have no pl"):
        both = tensors | {"blocks.0.gamma_1": tensors["blocks.0.ls1.gamma"]}
        weights.from_torch("deit3_b", model, both)


def without(*keys):
    return lambda tensors: {k: v for k, v in tensors.items() if k not in keys}


FAULTS = {
    "of a network without distillation": (
        without("dist_token", "head_dist.weight", "head_dist.bias"),
        ["no tensor 'dist_token' for dist_token of", "nor 2 others (head_dist."],
    ),
    "with a token too many": (
        lambda tensors: tensors | {"head_dist_2.weight": np.ones((7, 192))},
        ["tensor 'head_dist_2.weight' and 0 others have no place"],
    ),
    "cut off, and with other names": (
        lambda tensors: (
            without("norm.weight")(tensors) | {"fc_norm.weight": np.ones(2)}
        ),
        ["no tensor 'norm.weight' for norm.scale", "'fc_norm.weight' and 0 others"],
    ),
    "for larger images": (
        lambda tensors: tensors | {"pos_embed": np.ones((1, 18, 192), np.float32)},
        ["'pos_embed' has shape (1, 18, 192), but pos_embed", "needs (1, 6, 192)"],
    ),
    "for other classes": (
        lambda tensors: tensors | {"head.bias": np.ones(1000, np.float32)},
        ["'head.bias' has shape (1000,)", "check num_classes"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_does_not_fit_is_refused_whole(fault, tmp_path):
    change, words = FAULTS[fault]
    model, other = small(), small(1)
    tensors = change(weights.to_torch("deit_ti_distilled", other))
    path = write(tmp_path / "deit.safetensors", tensors)
    before = jax.tree.map(np.asarray, nnx.state(model))
    with pytest.raises(ValueError) as error:
        weights.fill("deit_ti_distilled", model, path)
    assert all(word in str(error.value) for word in words), error.value
    equal(nnx.state(model), before)


def test_load_makes_the_random_state_of_stochastic_depth(tmp_path):
    path, two = tmp_path / "deit.safetensors", SHORT | {"max_blocks": 2}
    model = small(**two)
    weights.write_safetensors(path, "deit_ti_distilled", model)
    loaded = weights.load("deit_ti_distilled", path, **two, drop_path=0.5)
    equal(nnx.state(loaded, nnx.Param), nnx.state(model, nnx.Param))
    assert loaded.trunk.drop_path(4).shape == (2, 2, 4)


PLACES = {
    "regnety_160.safetensors": None,
    "weights.pth": None,
    "regnety_160-a5fe301d.pth": "deit_in1k",
    "regnety_160.deit_in1k.safetensors": "deit_in1k",
    "regnety_160.deit_in1k/model.safetensors": "deit_in1k",
    "regnety_160.sw_in12k_ft_in1k.safetensors": "sw_in12k_ft_in1k",
    "timm_regnety_160/pytorch_model.bin": None,
    "models--timm--regnety_160.swag_ft_in1k/snapshots/0a1b/model.safetensors": (
        "swag_ft_in1k"
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_files_of_another_training_are_named(place):
    text = describe_other_training("regnety_160", Path(place))
    tag = PLACES[place]
    if tag in (None, "deit_in1k"):
        assert text is None
    else:
        assert f"holds regnety_160.{tag}, which is another training" in text
        assert "regnety_160.deit_in1k" in text
    assert describe_other_training("resnet8", Path(place)) is None


def test_the_training_is_read_from_timms_configuration(tmp_path, caplog):
    path, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    network = "deit3_base_patch16_224"

    def described(tag, architecture=network):
        settings = {"architecture": architecture, "pretrained_cfg": {"tag": tag}}
        return json.dumps(settings)

    for other in ("{", "[]", "{}", described("x", "resnet50"), described("fb_in1k")):
        config.write_text(other)
        assert describe_other_training("deit3_b", path) is None
    config.write_text(described("fb_in22k_ft_in1k"))
    model = small(name="deit3_b")
    weights.write_safetensors(path, "deit3_b", model)
    with caplog.at_level(logging.WARNING):
        weights.fill("deit3_b", model, path)
    (text,) = (record.message for record in caplog.records)
    assert f"{path} holds {network}.fb_in22k_ft_in1k, which is another train" in text
    assert f"{network}.fb_in1k (trained on ImageNet-1k alone" in text


def test_files_of_deit3_name_their_training():
    other = describe_other_training("deit3_b", Path("deit_3_base_224_21k.pth"))
    assert "deit3_base_patch16_224.fb_in22k_ft_in1k" in str(other)
    assert describe_other_training("deit3_b", Path("deit_3_base_224_1k.pth")) is None
