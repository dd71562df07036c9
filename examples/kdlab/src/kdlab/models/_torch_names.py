"""Names of the layers of each family in public PyTorch checkpoints.

Each line maps a path in the model to the name of the layer in the checkpoint, or to the
names of convolution and BatchNorm of a :class:`ConvNorm`. ``{i}`` stands for any index
and ``{3*i+1}`` for arithmetic on it, ``{part}`` for any one part of a path; the first
matching line applies. A parameter of the network itself, such as a token, is a layer.
"""

Names = dict[str, str | tuple[str, str]]

ALIASES = ((r"\.gamma_(\d)$", r".ls\1.gamma"),)
"""Patterns of names in other files, and timm's names: the factors in DeiT III's own."""


def _residual(shortcut: str, classifier: str) -> Names:
    return {
        "stem": ("conv1", "bn1"),
        "stages.{s}.{b}.units.{i}": (
            "layer{s+1}.{b}.conv{i+1}",
            "layer{s+1}.{b}.bn{i+1}",
        ),
        "stages.{s}.{b}.shortcut": (
            f"layer{{s+1}}.{{b}}.{shortcut}.0",
            f"layer{{s+1}}.{{b}}.{shortcut}.1",
        ),
        "classifier": classifier,
    }


# torchvision, and the three-stage CIFAR ResNets of RepDistiller and mdistiller.
RESNET = _residual("downsample", "fc")
# Their four-stage ResNets, including the Tiny-ImageNet teacher.
RESNET_SMALL_STEM = _residual("shortcut", "linear")

WRN: Names = {
    "stem": "conv1",
    "stages.{s}.{b}.norm{i}": "block{s+1}.layer.{b}.bn{i}",
    "stages.{s}.{b}.conv{i}": "block{s+1}.layer.{b}.conv{i}",
    "stages.{s}.{b}.shortcut": "block{s+1}.layer.{b}.convShortcut",
    "norm": "bn1",
    "classifier": "fc",
}

VGG: Names = {
    "stages.{s}.{i}": ("block{s}.{3*i}", "block{s}.{3*i+1}"),
    "classifier": "classifier",
}

MOBILENET_V1: Names = {
    "stem": ("model.0.0", "model.0.1"),
    # The checkpoint numbers the units of all stages consecutively.
    **{
        f"stages.{stage}.{{i}}.{part}": (
            f"model.{{i+{first}}}.{conv}",
            f"model.{{i+{first}}}.{conv + 1}",
        )
        for stage, first in enumerate((1, 4, 6, 12))
        for part, conv in (("depthwise", 0), ("pointwise", 3))
    },
    "classifier": "fc",
}

MOBILENET_V2: Names = {
    "stem": ("conv1.0", "conv1.1"),
    "stages.{s}.{b}.units.{i}": (
        "blocks.{s}.{b}.conv.{3*i}",
        "blocks.{s}.{b}.conv.{3*i+1}",
    ),
    "head": ("conv2.0", "conv2.1"),
    "classifier": "classifier.0",
}

MOBILENET_V2_TINY: Names = {
    "stem": ("pre.0", "pre.1"),
    # Stages of one block have no block index.
    "stages.0.0.units.{i}": ("stage1.residual.{3*i}", "stage1.residual.{3*i+1}"),
    "stages.6.0.units.{i}": ("stage7.residual.{3*i}", "stage7.residual.{3*i+1}"),
    "stages.{s}.{b}.units.{i}": (
        "stage{s+1}.{b}.residual.{3*i}",
        "stage{s+1}.{b}.residual.{3*i+1}",
    ),
    "head": ("conv1.0", "conv1.1"),
    "classifier": "conv2",
}

SHUFFLENET_V1: Names = {
    "stem": ("conv1", "bn1"),
    "stages.{s}.{b}.units.{i}": (
        "layer{s+1}.{b}.conv{i+1}",
        "layer{s+1}.{b}.bn{i+1}",
    ),
    "classifier": "linear",
}

SHUFFLENET_V2: Names = {
    "stages.{s}.0.left.{i}": ("layer{s+1}.0.conv{i+1}", "layer{s+1}.0.bn{i+1}"),
    "stages.{s}.0.right.{i}": ("layer{s+1}.0.conv{i+3}", "layer{s+1}.0.bn{i+3}"),
    "head": ("conv2", "bn2"),
    **SHUFFLENET_V1,
}

REGNET: Names = {
    "stem": ("stem.conv", "stem.bn"),
    "stages.{s}.{b}.units.{i}": (
        "s{s+1}.b{b+1}.conv{i+1}.conv",
        "s{s+1}.b{b+1}.conv{i+1}.bn",
    ),
    "stages.{s}.{b}.shortcut": (
        "s{s+1}.b{b+1}.downsample.conv",
        "s{s+1}.b{b+1}.downsample.bn",
    ),
    "stages.{s}.{b}.se.{part}": "s{s+1}.b{b+1}.se.{part}",
    "classifier": "head.fc",
}

_TRANSFORMER: Names = {
    **{name: name for name in ("cls_token", "dist_token", "pos_embed", "norm")},
    "stem.proj": "patch_embed.proj",
    "trunk.blocks.{i}.{part}": "blocks.{i}.{part}",
    "trunk.blocks.{i}.{module}.{part}": "blocks.{i}.{module}.{part}",
    "classifier": "head",
}

DEIT: Names = {
    **_TRANSFORMER,
    "distill_classifier": "head_dist",
    # The stem of VkD and SRD.
    "stem.convs.{i}": ("conv_embed.conv.{3*i}", "conv_embed.conv.{3*i+1}"),
    "stem.patches": "conv_embed.proj",
}

DEIT3: Names = {
    "trunk.blocks.{i}.gamma_{j}": "blocks.{i}.ls{j}.gamma",
    **_TRANSFORMER,
}

CAIT: Names = {
    "class_blocks.{i}.{part}": "blocks_token_only.{i}.{part}",
    "class_blocks.{i}.{module}.{part}": "blocks_token_only.{i}.{module}.{part}",
    **_TRANSFORMER,
}
