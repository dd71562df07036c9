"""Counts and shapes of every model, training and evaluation of the small ones."""

import io
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P
from rich.console import Console

from _models import filled
from _vit_golden import TRANSFORMERS
from kdlab import models
from kdlab.models import _blocks, table
from kdlab.models.convolutional.resnet import ResNet, cifar_resnet
from kdlab.models.convolutional.wrn import WideResNet

TINY = {"num_classes": 200, "image_shape": (64, 64, 3)}
CIFAR_MAPS = "16x32 16x32 32x16 64x8"
VGG_MAPS = "64x32 128x16 256x8 512x4 512x4"
BASIC_MAPS = "64x112 64x56 128x28 256x14 512x7"
BOTTLENECK_MAPS = "64x112 256x56 512x28 1024x14 2048x7"
# Parameters, millions of multiply-adds (None: not published), stage maps as channels x
# height, width of the pooled vector. CIFAR and Tiny: mdistiller a08d46f; ImageNet:
# torchvision's counts, and timm's of RegNetY; digits: by hand, as below.
MODELS = {
    "cnn_teacher": (220_234, None, "32x28 64x14", 64),
    "cnn_student": (9_098, None, "8x28 16x14", 784),
    "mlp": (3_466, None, "32x1 32x1", 32),
    "resnet8": (83_892, None, CIFAR_MAPS, 64),
    "resnet14": (181_108, None, CIFAR_MAPS, 64),
    "resnet20": (278_324, 40.8, CIFAR_MAPS, 64),
    "resnet32": (472_756, 69.1, CIFAR_MAPS, 64),
    "resnet44": (667_188, 97.4, CIFAR_MAPS, 64),
    "resnet56": (861_620, 125.8, CIFAR_MAPS, 64),
    "resnet110": (1_736_564, 253.2, CIFAR_MAPS, 64),
    "resnet8x4": (1_233_540, 177.1, "32x32 64x32 128x16 256x8", 256),
    "resnet32x4": (7_433_860, 1083.0, "32x32 64x32 128x16 256x8", 256),
    "wrn_16_1": (180_916, None, CIFAR_MAPS, 64),
    "wrn_16_2": (703_284, 101.1, "16x32 32x32 64x16 128x8", 128),
    "wrn_40_1": (569_780, 83.3, CIFAR_MAPS, 64),
    "wrn_40_2": (2_255_156, 327.6, "16x32 32x32 64x16 128x8", 128),
    "vgg8": (3_965_028, 96.2, VGG_MAPS, 512),
    "vgg11": (9_277_284, None, VGG_MAPS, 512),
    "vgg13": (9_462_180, 284.9, VGG_MAPS, 512),
    "vgg16": (14_774_436, None, VGG_MAPS, 512),
    "vgg19": (20_086_692, None, VGG_MAPS, 512),
    "mobilenet_v2": (812_836, 6.5, "16x16 12x16 16x8 48x4 160x2", 1280),
    "shufflenet_v1": (949_258, 38.7, "24x32 240x16 480x8 960x4", 960),
    "shufflenet_v2": (1_355_528, 44.5, "24x32 116x16 232x8 464x4", 1024),
    "resnet18": (11_220_132, None, "64x32 64x32 128x16 256x8 512x4", 512),
    "resnet34": (21_328_292, None, "64x32 64x32 128x16 256x8 512x4", 512),
    "resnet50": (23_705_252, 1298.0, "64x32 256x32 512x16 1024x8 2048x4", 2048),
    "mobilenet_v2_tiny": (2_497_480, 215.7, "32x66 24x33 32x17 64x9 1280x9", 1280),
    "resnet18_imagenet": (11_689_512, 1814.1, BASIC_MAPS, 512),
    "resnet34_imagenet": (21_797_672, 3663.8, BASIC_MAPS, 512),
    "resnet50_imagenet": (25_557_032, 4089.2, BOTTLENECK_MAPS, 2048),
    "resnet101_imagenet": (44_549_160, 7801.4, BOTTLENECK_MAPS, 2048),
    "regnety_040": (20_646_656, 3973.3, "32x112 128x56 192x28 512x14 1088x7", 1088),
    "regnety_160": (83_590_140, 15911.5, "32x112 224x56 448x28 1232x14 3024x7", 3024),
    "mobilenet_v1": (4_231_976, 568.7, "32x112 128x56 256x28 512x14 1024x7", 1024),
}
OTHER_DATA = {
    "resnet18": (11_271_432, 2221.8, "64x64 64x64 128x32 256x16 512x8", 512),
    "shufflenet_v2": (1_458_028, None, "24x64 116x32 232x16 464x8", 1024),
}
# Those of one block a stage already.
SHORTEST = ("cnn_teacher", "cnn_student", "mlp", "resnet8", "resnet8x4", "vgg8")
ROWS = [(name, {}, *row) for name, row in MODELS.items()] + [
    (name, TINY, *row) for name, row in OTHER_DATA.items()
]
# Features without an activation of their own, and where ReLU is capped.
LINEAR = {name: (0, 1, 2, 3) for name in MODELS if name.startswith("wrn")}
LINEAR |= {"mobilenet_v2": (1, 2, 3, 4), "mobilenet_v2_tiny": (1, 2, 3)}
CAPS = {"mobilenet_v2_tiny": 6}
# The cheapest of each architecture.
FIRSTS = ["cnn_student", "mlp", "resnet8", "wrn_16_1", "vgg8", "mobilenet_v1"]
FIRSTS += ["mobilenet_v2_tiny", "shufflenet_v1", "shufflenet_v2"]


def slow(chosen, names):
    """Marks those of ``names`` that are not among the chosen ones."""
    marks = pytest.mark.slow
    return [x if x in chosen else pytest.param(x, marks=marks) for x in names]


def test_the_table_is_complete():
    assert {*MODELS, *TRANSFORMERS} == set(models.MODELS)


def test_the_table_of_the_documentation():
    text = (Path(__file__).parents[4] / "docs" / "networks.md").read_text()
    table = text.split("<!-- networks:begin -->")[1].split("<!-- networks:end -->")[0]
    shown = {}
    for line in table.strip().splitlines()[2:]:
        name, _, pixels, classes, parameters, _ = map(str.strip, line.split("|")[1:-1])
        shown[name.strip("`")] = int(parameters.replace(",", ""))
        spec = models.MODELS[name.strip("`")]
        assert (int(pixels), int(classes)) == (spec.image_shape[0], spec.num_classes)
    expected = {name: row[0] for name, row in (MODELS | TRANSFORMERS).items()}
    assert shown == expected


@pytest.mark.parametrize(
    ("name", "data", "parameters", "millions", "maps", "width"),
    [
        pytest.param(
            *row,
            id=row[0] + "_tiny" * bool(row[1]),
            marks=[] if row[0] in FIRSTS or row[1] else [pytest.mark.slow],
        )
        for row in ROWS
    ],
)
def test_counts_and_shapes(name, data, parameters, millions, maps, width):
    counts = models.summary(name, **data)
    assert counts.parameters == parameters
    if millions is not None:
        assert counts.multiply_adds / 1e6 == pytest.approx(millions, rel=1e-2)
    features = counts.outputs.features
    assert maps == " ".join(
        f"{shape[3]}x{shape[1]}" for shape in map(np.shape, features)
    )
    assert all(feature.shape[1] == feature.shape[2] for feature in features)
    assert [feature.shape for feature in features] == [
        preactivation.shape for preactivation in counts.outputs.preactivations
    ]
    assert counts.outputs.pooled.shape == (1, width)
    num_classes = data.get("num_classes", models.MODELS[name].num_classes)
    assert counts.outputs.logits.shape == (1, num_classes)
    short = models.summary(name, **data, max_blocks=1)
    assert short.outputs == counts.outputs
    assert short.parameters < parameters or name in SHORTEST


def test_multiply_adds_by_hand():
    convs = 28 * 28 * 8 * 9 * 1 + 14 * 14 * 16 * 9 * 8
    assert models.summary("cnn_student").multiply_adds == convs + 7 * 7 * 16 * 10
    # Groups divide the work: 24 -> 54, then 54 depthwise, then 3 groups of 18 -> 72.
    unit = _blocks.Layers(nnx.Rngs(0)).conv(54, 216, 1, groups=3)
    assert unit.kernel.size == 3 * 18 * 72


def test_options_and_shapes_are_free():
    counts = models.summary("mlp", width=8, depth=1, image_shape=(4, 6, 1))
    assert counts.parameters == 24 * 8 + 8 + 8 * 10 + 10
    counts = models.summary("cnn_teacher", image_shape=(9, 8, 3), num_classes=3)
    assert counts.outputs.features[1].shape == (1, 4, 4, 64)
    counts = models.summary("vgg8", image_shape=(64, 64, 3))
    assert counts.outputs.features[-1].shape == (1, 4, 4, 512)


@pytest.mark.parametrize("max_blocks", slow([1], [1, None]))
@pytest.mark.parametrize(
    "name", slow([*FIRSTS, "deit_ti_conv"], [*MODELS, "deit_ti_conv"])
)
def test_statistics_move_in_training_and_stay_in_evaluation(name, max_blocks):
    """Read off the traced program, where unchanged values are passed through."""
    model = nnx.eval_shape(
        lambda: models.create(name, rngs=nnx.Rngs(0), max_blocks=max_blocks)
    )
    shape = 2, *models.MODELS[name].image_shape
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    for mode, moving in ((model.train, True), (model.eval, False)):
        mode()
        graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

        def forward(params, stats, image, graphdef=graphdef):
            model = nnx.merge(graphdef, params, stats, copy=True)
            logits = model(image).logits
            return logits, nnx.state(model, nnx.BatchStat)

        traced = jax.make_jaxpr(forward)(params, stats, image).jaxpr
        count = len(jax.tree.leaves(params))
        before = traced.invars[count : count + len(jax.tree.leaves(stats))]
        after = traced.outvars[1:]
        moved = [x is not y for x, y in zip(before, after, strict=True)]
        assert moved == [moving] * len(before)


@pytest.mark.parametrize("name", slow(FIRSTS, [*FIRSTS, "regnety_040"]))
def test_every_norm_runs_once_and_types_are_kept(name, monkeypatch):
    """One update of the statistics a forward pass; bf16 compute, float32 parameters."""
    ran = []
    call = _blocks.BatchNorm.__call__

    def counted(self, x, *args, **kwargs):
        ran.append(id(self))
        return call(self, x, *args, **kwargs)

    monkeypatch.setattr(_blocks.BatchNorm, "__call__", counted)
    model = nnx.eval_shape(
        lambda: models.create(name, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
    )
    graphdef, state = nnx.split(model)
    norms = set()

    def forward(state, image):
        model = nnx.merge(graphdef, state, copy=True)
        norms.update(
            id(module)
            for _, module in nnx.iter_modules(model)
            if isinstance(module, _blocks.BatchNorm)
        )
        return model(image)

    shape = (2, *models.MODELS[name].image_shape)
    outputs = jax.eval_shape(forward, state, jax.ShapeDtypeStruct(shape, jnp.float32))
    assert sorted(ran) == sorted(norms)
    assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {jnp.dtype("bfloat16")}
    parameters = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert {leaf.dtype for leaf in parameters} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", slow(FIRSTS, MODELS))
def test_training_and_evaluation(name):
    """One block per stage has every kind of layer."""
    channels = models.MODELS[name].image_shape[-1]
    model = filled(name, num_classes=5, image_shape=(8, 8, channels), max_blocks=1)
    images = np.random.default_rng(1).normal(size=(4, 8, 8, channels))
    images = images.astype(np.float32)
    graphdef, params, stats = nnx.split(model, nnx.Param, ...)
    model.eval()
    evaluated = nnx.graphdef(model)

    def loss_fn(params, stats):
        model = nnx.merge(graphdef, params, stats, copy=True)
        outputs = model(images)
        log_probs = jax.nn.log_softmax(outputs.logits)
        return -jnp.mean(log_probs[:, 0]), (
            nnx.state(model, nnx.Not(nnx.Param)),
            outputs,
        )

    @jax.jit
    def step(params, stats):
        (loss, (stats, outputs)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            params, stats
        )
        nearer = jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads)
        return loss, grads, stats, outputs, nearer

    @jax.jit
    def evaluate(params, stats, images):
        model = nnx.merge(evaluated, params, stats, copy=True)
        return model(images).logits, nnx.state(model, nnx.Not(nnx.Param))

    loss, grads, moved, outputs, nearer = step(params, stats)
    for path, grad in nnx.to_flat_state(grads):
        assert np.isfinite(grad[...]).all(), path
        if path[-1] == "kernel":
            assert np.any(grad[...]), path
    for path, variable in nnx.to_flat_state(nnx.filter_state(moved, nnx.BatchStat)):
        before = dict(nnx.to_flat_state(stats))[path]
        assert np.any(np.asarray(variable) != np.asarray(before)), path
    for i, (feature, before) in enumerate(
        zip(outputs.features, outputs.preactivations, strict=True)
    ):
        if i not in LINEAR.get(name, ()):
            clipped = np.clip(before, 0, CAPS.get(name))
            np.testing.assert_allclose(feature, clipped, rtol=1e-5, atol=1e-6)
    assert step(nearer, stats)[0] < loss

    logits, unmoved = evaluate(params, moved, images)
    jax.tree.map(np.testing.assert_array_equal, unmoved, moved)
    # An image's scores do not depend on the others of its batch.
    others = np.concatenate([images[:1], 3 * images[1:]])
    np.testing.assert_allclose(
        evaluate(params, moved, others)[0][0], logits[0], rtol=1e-5, atol=1e-6
    )


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def test_batch_norm_statistics():
    norm = _blocks.Layers(nnx.Rngs(0)).norm(3)
    x = 2 + 3 * normal(4, 5, 5, 3)
    y, x = norm(x), np.asarray(x)
    mean, var = np.mean(x, axis=(0, 1, 2)), np.var(x, axis=(0, 1, 2))
    np.testing.assert_allclose(norm.mean[...], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * var, rtol=1e-5)
    np.testing.assert_allclose(
        y,
        (x - mean) / np.sqrt(var + 1e-5),
        atol=1e-5,
    )


def test_batch_norm_of_bf16_keeps_float32_statistics():
    layers = _blocks.Layers(nnx.Rngs(0))
    norm, reference = layers.norm(2), layers.norm(2)
    # A mean that bf16 cannot hold beside the variance.
    x = (100 + normal(64, 4, 4, 2)).astype(jnp.bfloat16)
    assert norm(x).dtype == jnp.bfloat16
    reference(x.astype(jnp.float32))
    np.testing.assert_array_equal(norm.mean[...], reference.mean[...])
    np.testing.assert_array_equal(norm.var[...], reference.var[...])


@pytest.mark.parametrize("axis_name", [None, "data"])
def test_batch_norm_over_replicas(axis_name):
    norm = _blocks.Layers(nnx.Rngs(0), axis_name=axis_name).norm(3)
    graphdef, state = nnx.split(norm)
    # Images of growing contrast, so that the replicas' statistics differ.
    x = normal(4, 2, 2, 3) * jnp.asarray([1.0, 2.0, 3.0, 4.0])[:, None, None, None]

    def replica(state, x):
        norm = nnx.merge(graphdef, state, copy=True)
        y = norm(x)
        return y, norm.var[...][None]

    mesh = jax.make_mesh(
        (2,),
        ("data",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:2],
    )
    divided = jax.shard_map(
        replica, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data")
    )
    y, var = jax.jit(divided)(state, x)
    whole = _blocks.Layers(nnx.Rngs(0)).norm(3)
    same = np.allclose(y, nnx.jit(lambda norm, x: norm(x))(whole, x), atol=1e-5)
    assert same == (axis_name is not None)
    assert np.array_equal(var[0], var[1]) == (axis_name is not None)


def test_channel_shuffle_interleaves():
    x = jnp.arange(6)[None, None, None]
    np.testing.assert_array_equal(
        _blocks.channel_shuffle(x, 2)[0, 0, 0], [0, 3, 1, 4, 2, 5]
    )
    np.testing.assert_array_equal(_blocks.channel_shuffle(x, 1), x)


def test_avg_pool_pads_with_zeros():
    pooled = _blocks.avg_pool(jnp.ones((1, 4, 4, 1)), 3, 2, padding=1)
    np.testing.assert_allclose(pooled[0, :, :, 0], [[4 / 9, 6 / 9], [6 / 9, 1]])


def test_max_pool_pads_with_nothing():
    x = -jnp.ones((1, 4, 4, 1))
    np.testing.assert_array_equal(
        _blocks.max_pool(x, 3, 2, padding=1), -np.ones((1, 2, 2, 1))
    )


def test_initial_values_of_resnet():
    model = ResNet(
        (1,),
        (64,),
        num_classes=10,
        image_shape=(8, 8, 3),
        layers=_blocks.Layers(nnx.Rngs(0)),
    )
    # 36,864 normal samples: the deviation is known to 0.4 %.
    kernel = np.asarray(model.stages[0][0].units[1].conv.kernel[...])
    assert np.std(kernel) == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.02)
    for leaf in (model.classifier.kernel, model.classifier.bias):
        assert 0.7 / 8 < np.max(np.abs(np.asarray(leaf[...]))) <= 1 / 8
    assert np.all(np.asarray(model.stem.norm.scale[...]) == 1)


@pytest.mark.slow
def test_initial_values_of_wrn_and_vgg():
    wrn = models.create("wrn_16_1", rngs=nnx.Rngs(0))
    assert np.all(np.asarray(wrn.classifier.bias[...]) == 0)
    vgg = models.create("vgg8", rngs=nnx.Rngs(0))
    assert np.std(vgg.classifier.kernel[...]) == pytest.approx(0.01, rel=0.02)
    assert np.all(np.asarray(vgg.stages[0][0].conv.bias[...]) == 0)


def test_initial_values_of_convolutions_with_groups():
    """Fan-in and fan-out count one group, as in PyTorch."""
    layers = _blocks.Layers(nnx.Rngs(0))
    conv = layers.conv(30, 60, 3, groups=3, bias=True)
    for leaf in (conv.kernel[...], conv.bias[...]):
        assert (
            0.9 / math.sqrt(90) < np.max(np.abs(np.asarray(leaf))) <= 1 / math.sqrt(90)
        )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "resnet21",
            {},
            "no model 'resnet21'; did you mean 'resnet2?0?.*There are: cnn",
        ),
        ("zzz", {}, "no model 'zzz'; There are: cnn_teacher, cnn_student"),
        ("cnn_student", {"image_shape": (3, 28, 1)}, "at least 4 pixels"),
        ("vgg8", {"image_shape": (7, 7, 3)}, "at least 8 pixels"),
        ("mlp", {"depth": 0}, "at least 1 hidden layer"),
        (
            "resnet20",
            {"drop_path": 0.1},
            "'drop_path': take .*, or leave --drop-path out",
        ),
        ("cnn_student", {"scan": True}, "cnn_student takes no argument 'scan'"),
    ],
)
def test_errors(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize("depth", [2, 21])
def test_depths(depth):
    options = {
        "num_classes": 10,
        "image_shape": (8, 8, 3),
        "layers": _blocks.Layers(nnx.Rngs(0)),
    }
    with pytest.raises(ValueError, match=r"6 n \+ 2"):
        cifar_resnet(depth, **options)
    with pytest.raises(ValueError, match=r"6 n \+ 4"):
        WideResNet(depth, 1, **options)


def test_print_table(monkeypatch):
    chosen = {name: models.MODELS[name] for name in ("mlp", "resnet8")}
    monkeypatch.setattr(table, "MODELS", chosen)
    text = io.StringIO()
    table.print_table(Console(file=text, width=120))
    assert "83,892" in text.getvalue()
    assert "16x32 16x32 32x16 64x8" in text.getvalue()
