"""The table of models and their constructor."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from kdlab.basics.hint import did_you_mean
from kdlab.basics.importing import is_reference
from kdlab.models import _torch_names as names
from kdlab.models._blocks import Layers
from kdlab.models._outputs import Model
from kdlab.models.convolutional.cnn import CNN, MLP
from kdlab.models.convolutional.mobilenet_v1 import MobileNetV1
from kdlab.models.convolutional.mobilenet_v2 import MobileNetV2, TinyMobileNetV2
from kdlab.models.convolutional.regnet import RegNetY
from kdlab.models.convolutional.resnet import ResNet, cifar_resnet
from kdlab.models.convolutional.shufflenet_v1 import ShuffleNetV1
from kdlab.models.convolutional.shufflenet_v2 import ShuffleNetV2
from kdlab.models.convolutional.vgg import VGG
from kdlab.models.convolutional.wrn import WideResNet
from kdlab.models.own import check_options, make_user_model
from kdlab.models.transformers.cait import CaiT
from kdlab.models.transformers.deit import DeiT
from kdlab.models.transformers.deit3 import DeiT3


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A constructor, and the data set for which the literature reports its size.

    Attributes:
        make: Takes ``num_classes``, ``image_shape`` and ``layers`` by keyword.
        torch_names: Names of its layers in PyTorch checkpoints; None if there are none.
        num_classes: Number of classes of that data set.
        image_shape: Its ``(height, width, channels)``.
    """

    make: Callable[..., Model]
    torch_names: names.Names | None = None
    _: dataclasses.KW_ONLY
    num_classes: int
    image_shape: tuple[int, int, int]


mnist = partial(ModelSpec, num_classes=10, image_shape=(28, 28, 1))
digits = partial(ModelSpec, num_classes=10, image_shape=(8, 8, 1))
cifar = partial(ModelSpec, num_classes=100, image_shape=(32, 32, 3))
tiny = partial(ModelSpec, num_classes=200, image_shape=(64, 64, 3))
imagenet = partial(ModelSpec, num_classes=1000, image_shape=(224, 224, 3))

deit_ti = partial(DeiT, 192, 12, 3)
deit_s = partial(DeiT, 384, 12, 6)

MODELS: dict[str, ModelSpec] = {
    "cnn_teacher": mnist(partial(CNN, (32, 64), (64,))),
    "cnn_student": mnist(partial(CNN, (8, 16))),
    "mlp": digits(MLP),
    "resnet8": cifar(partial(cifar_resnet, 8), names.RESNET),
    "resnet14": cifar(partial(cifar_resnet, 14), names.RESNET),
    "resnet20": cifar(partial(cifar_resnet, 20), names.RESNET),
    "resnet32": cifar(partial(cifar_resnet, 32), names.RESNET),
    "resnet44": cifar(partial(cifar_resnet, 44), names.RESNET),
    "resnet56": cifar(partial(cifar_resnet, 56), names.RESNET),
    "resnet110": cifar(partial(cifar_resnet, 110), names.RESNET),
    "resnet8x4": cifar(partial(cifar_resnet, 8, stem=32, width=64), names.RESNET),
    "resnet32x4": cifar(partial(cifar_resnet, 32, stem=32, width=64), names.RESNET),
    "resnet18": cifar(partial(ResNet, (2, 2, 2, 2)), names.RESNET_SMALL_STEM),
    "resnet34": cifar(partial(ResNet, (3, 4, 6, 3)), names.RESNET_SMALL_STEM),
    "resnet50": cifar(
        partial(ResNet, (3, 4, 6, 3), bottleneck=True), names.RESNET_SMALL_STEM
    ),
    "resnet18_imagenet": imagenet(
        partial(ResNet, (2, 2, 2, 2), imagenet_stem=True), names.RESNET
    ),
    "resnet34_imagenet": imagenet(
        partial(ResNet, (3, 4, 6, 3), imagenet_stem=True), names.RESNET
    ),
    "resnet50_imagenet": imagenet(
        partial(ResNet, (3, 4, 6, 3), bottleneck=True, imagenet_stem=True), names.RESNET
    ),
    "resnet101_imagenet": imagenet(
        partial(ResNet, (3, 4, 23, 3), bottleneck=True, imagenet_stem=True),
        names.RESNET,
    ),
    "wrn_16_1": cifar(partial(WideResNet, 16, 1), names.WRN),
    "wrn_16_2": cifar(partial(WideResNet, 16, 2), names.WRN),
    "wrn_40_1": cifar(partial(WideResNet, 40, 1), names.WRN),
    "wrn_40_2": cifar(partial(WideResNet, 40, 2), names.WRN),
    "vgg8": cifar(partial(VGG, (1, 1, 1, 1, 1)), names.VGG),
    "vgg11": cifar(partial(VGG, (1, 1, 2, 2, 2)), names.VGG),
    "vgg13": cifar(partial(VGG, (2, 2, 2, 2, 2)), names.VGG),
    "vgg16": cifar(partial(VGG, (2, 2, 3, 3, 3)), names.VGG),
    "vgg19": cifar(partial(VGG, (2, 2, 4, 4, 4)), names.VGG),
    "mobilenet_v1": imagenet(MobileNetV1, names.MOBILENET_V1),
    "mobilenet_v2": cifar(MobileNetV2, names.MOBILENET_V2),
    "mobilenet_v2_tiny": tiny(TinyMobileNetV2, names.MOBILENET_V2_TINY),
    "shufflenet_v1": cifar(ShuffleNetV1, names.SHUFFLENET_V1),
    "shufflenet_v2": cifar(ShuffleNetV2, names.SHUFFLENET_V2),
    "regnety_040": imagenet(
        partial(RegNetY, initial=96, slope=31.41, ratio=2.24, depth=22, group=64),
        names.REGNET,
    ),
    "regnety_160": imagenet(
        partial(RegNetY, initial=200, slope=106.23, ratio=2.48, depth=18, group=112),
        names.REGNET,
    ),
    "deit_ti": imagenet(deit_ti, names.DEIT),
    "deit_s": imagenet(deit_s, names.DEIT),
    "deit_ti_distilled": imagenet(partial(deit_ti, distilled=True), names.DEIT),
    "deit_s_distilled": imagenet(partial(deit_s, distilled=True), names.DEIT),
    # The students that VkD and SRD call DeiT-Ti and DeiT-S.
    "deit_ti_conv": imagenet(partial(deit_ti, distilled=True, stem="conv"), names.DEIT),
    "deit_s_conv": imagenet(partial(deit_s, distilled=True, stem="conv"), names.DEIT),
    # Small enough to be trained on a CPU.
    "vit_tiny32": cifar(partial(DeiT, 128, 5, 4, distilled=True, patch=4), names.DEIT),
    "deit3_b": imagenet(partial(DeiT3, 768, 12, 12), names.DEIT3),
    "cait_s24": imagenet(partial(CaiT, 384, 24, 8), names.CAIT),
}


def find(name: str) -> ModelSpec:
    """Looks a model up.

    Args:
        name: A key of :data:`MODELS`.

    Returns:
        Its specification.

    Raises:
        ValueError: If there is no such model; the message names the closest one.
    """
    if name not in MODELS:
        hint = did_you_mean(name, MODELS)
        raise ValueError(f"no model {name!r}; {hint}There are: {', '.join(MODELS)}")
    return MODELS[name]


def create(
    name: str,
    *,
    rngs: nnx.Rngs,
    num_classes: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
    dtype: DTypeLike | None = None,
    param_dtype: DTypeLike = jnp.float32,
    axis_name: str | None = None,
    batch_norm_group: int | None = None,
    max_blocks: int | None = None,
    **options: Any,
) -> Model:
    """Makes a model that maps images ``[b, h, w, d]`` to :class:`Outputs`.

    Args:
        name: A key of :data:`MODELS`, or ``MODULE:FUNCTION`` for your own network; see
            :func:`~kdlab.models.own.make_user_model`.
        rngs: Random streams of the initial values.
        num_classes: Number of classes; by default that of the model's data set.
        image_shape: ``(height, width, channels)``; by default that of its data set.
        dtype: Dtype of the computation, such as ``jnp.bfloat16``; parameters and
            BatchNorm stay in ``param_dtype``. None: the dtype of the images.
        param_dtype: Dtype of the parameters.
        axis_name: Axis of ``shard_map`` or ``pmap`` over which BatchNorm averages;
            None: each replica has its own statistics.
        batch_norm_group: Number of images that share statistics, such as the 64 of one
            replica in a larger batch; None: all.
        max_blocks: Maximum number of blocks in each stage, for quick trials; None: no
            limit.
        **options: Other arguments of the constructor, such as ``width`` of ``"mlp"``.

    Returns:
        A model in training mode.

    Raises:
        ValueError: If there is no such model, or it does not take one of the options.
    """
    if is_reference(name):
        if num_classes is None or image_shape is None:
            raise ValueError(f"{name}: pass num_classes and image_shape.")
        return make_user_model(
            name,
            num_classes=num_classes,
            image_shape=image_shape,
            rngs=rngs,
            options=options
            | {
                "dtype": dtype,
                "batch_norm_group": batch_norm_group,
                "max_blocks": max_blocks,
            },
        )
    spec = find(name)
    check_options(name, spec.make, options, "take another network")
    layers = Layers(rngs, dtype, param_dtype, axis_name, batch_norm_group, max_blocks)
    return spec.make(
        num_classes=spec.num_classes if num_classes is None else num_classes,
        image_shape=image_shape or spec.image_shape,
        layers=layers,
        **options,
    )
