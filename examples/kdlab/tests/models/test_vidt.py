"""ViDT against the published code, and what the golden values do not show."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kdopt
from _vidt import GOLDEN, SMALLEST, abstract, golden, golden_batch, golden_vidt, sines
from kdlab.models._blocks import Layers
from kdlab.models.vidt import CONFIGS, NeckInput, Vidt, VidtConfig, masks, weights
from kdlab.models.vidt.attention import Context
from kdlab.models.vidt.cost import cost
from kdlab.models.vidt.deformable import DeformableAttention, sample_scales
from kdlab.models.vidt.layers import dropout
from kdlab.models.vidt.swin import Block
from tests import _compiler

SIZES = (6, 8), (3, 4)


def compiled(fn, *args):
    return jax.jit(fn).lower(*args).compile(_compiler.FASTEST)(*args)


def double():
    return Layers(nnx.Rngs(0), param_dtype=jnp.float64)


def fill(module, scales):
    """Fills a module by the golden formula; scales(name, shape) -> scale, mean."""
    state = nnx.state(module)
    paths = {
        ".".join(map(str, path))
        .replace("kernel", "weight")
        .replace("scale", "weight"): (
            path,
            variable,
        )
        for path, variable in nnx.to_flat_state(state)
    }
    flat = []
    for t, name in enumerate(sorted(paths)):
        path, variable = paths[name]
        kernel = path[-1] == "kernel"
        shape = variable.shape[::-1] if kernel else variable.shape
        value = sines(shape, t, *scales(name, shape))
        flat.append((path, variable.replace(jnp.asarray(value.T if kernel else value))))
    nnx.update(module, nnx.from_flat_state(flat))


def close(actual, expected, tolerance=1e-10):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def neck_input():
    """What the neck of the smallest network takes."""
    maps = tuple(jnp.asarray(sines((1, n, n, 32), n), "float32") for n in (4, 3, 2, 1))
    tokens, positions = (jnp.asarray(sines((1, 3, 32), t), "float32") for t in (6, 7))
    return NeckInput(maps, tokens, positions, tuple(x[..., 0] > 9 for x in maps))


# Deformable attention.


def test_samples_and_their_gradients(x64, standard):
    expected = golden("msda")
    values, locations = sines((2, 60, 2, 3), 1), sines((2, 5, 2, 2, 2, 2), 2, 0.55, 0.5)
    shares = jax.nn.softmax(sines((2, 5, 2, 4), 3, 2)).reshape(2, 5, 2, 2, 2)

    def run(*args):
        y, pull = jax.vjp(lambda v, *x: sample_scales(v, SIZES, *x), *args)
        return y.reshape(2, 5, 6), pull(jnp.asarray(sines(y.shape, 4)))

    y, grads = jax.jit(run)(jnp.asarray(values), jnp.asarray(locations), shares)
    close(y, expected["y"])
    for grad, name in zip(grads, ("value", "loc", "weight"), strict=True):
        close(grad, expected[f"grad_{name}"])


@pytest.mark.parametrize("location", [np.nan, np.inf, -1e30, 1e30])
def test_samples_far_outside_are_zero_or_nan(location):
    values = jnp.ones((1, 4, 1, 1))
    locations = jnp.full((1, 1, 1, 1, 1, 2), location)
    shares = jnp.ones((1, 1, 1, 1, 1))
    y = jax.jit(lambda x: sample_scales(values, [(2, 2)], x, shares))(locations)
    assert y.item() == 0 or not np.isfinite(location)


@pytest.mark.parametrize("numbers", [2, 4])
def test_deformable_attention(x64, standard, numbers):
    def scales(name, shape):
        if name.endswith("weight"):
            return (math.sqrt(2 / shape[1]),)
        return (1.5 if name.startswith("sampling") else 0.1,)

    attention = DeformableAttention(8, 2, 2, 2, layers=double())
    fill(attention, scales)
    mask = np.zeros((2, 60), bool)
    mask[1, 40:48], mask[1, 56:] = True, True
    y = compiled(
        lambda queries, references, x: attention(queries, references, x, SIZES, mask),
        sines((2, 3, 8), 11),
        sines((2, 3, 2, numbers), 13, 0.3, 0.5),
        sines((2, 60, 8), 12),
    )
    close(y, golden("msda")[f"module_ref{numbers}"])


# The body.


@pytest.mark.parametrize(
    ("case", "shift", "size", "sums"),
    [
        ("plain", 0, (16, 16), (57.94379594274, 0.88813060049)),
        ("shift", 2, (16, 16), (65.80917694146, 0.88813060049)),
        ("pad", 2, (6, 5), (8.08485931257, 0.98107019147)),
        ("cross", 2, (6, 5), (8.08485931257, -0.32876143562)),
    ],
)
def test_block(x64, standard, case, shift, size, sums):
    def scales(name, shape):
        if name.endswith("table"):
            return (0.5,)
        if len(shape) == 1:
            return 0.1, float(name.endswith("weight"))
        return (math.sqrt(2 / shape[1]),)

    block = Block(32, 4, 4, shift, position_width=16, layers=double())
    fill(block, scales)
    area = math.prod(size)
    x = sines((2, area + 3, 32), 50)
    patches, tokens = x[:, :area].reshape(2, *size, 32), x[:, area:]
    mask = np.zeros((2, *size), bool)
    mask[1, 4:], mask[1, :, 4:] = True, True
    context = None
    if case == "cross":
        positions = masks.sine_positions(jnp.asarray(mask), 32, jnp.float64)
        context = Context(positions, jnp.asarray(mask))
    patches, tokens = nnx.jit(block)(
        *map(jnp.asarray, (patches, tokens, sines((1, 3, 16), 51, 0.5))), context
    )
    close((patches.sum(), tokens.sum()), sums)
    y = np.concatenate([patches.reshape(2, area, 32), tokens], 1)
    expected = golden("blocks")[case]
    # Of the first two cases one image is stored, in single precision.
    tolerance = 1e-10 if expected.dtype == np.float64 else 3e-7
    close(y[: len(expected)], expected, tolerance)


def test_masks_are_resized_twice():
    # 13 patches are 1 in the first resize and 2 in the stage, so both copy the first.
    mask = jnp.arange(52)[None, :, None] >= 26
    mask = jnp.broadcast_to(mask, (1, 52, 64))
    twice = masks.resize_mask_for_body(mask, (2, 2))
    assert twice.tolist() == [[[False, False]] * 2]
    assert masks.resize_mask(mask, (2, 2)).tolist() == [[[False] * 2, [True] * 2]]


# The whole.


def test_detections(x64, standard):
    expected = golden("tiny")
    model = golden_vidt(param_dtype=jnp.float64)

    def run(model, images, mask):
        maps, tokens = model.backbone(images, mask)
        return [x.sum() for x in (*maps, tokens)], model(images, mask)

    sums, found = compiled(run, model, *golden_batch())
    close(
        sums,
        (
            70.1680339272,
            -54.3925634614,
            -239.2915990090,
            90.0853276180,
            -798.3966144975,
        ),
        1e-9,
    )
    close(
        [x.sum() for x in found.patch_tokens],
        (-13.6398434702, -15.2594700150, -22.0968396010, -2.5527230924),
        1e-9,
    )
    close(
        found.neck_det.sum((1, 2, 3)),
        (0.1547694768, -3.4683186916, 20.0950945570),
        1e-9,
    )
    for name in ("logits", "boxes", "body_det"):
        close(getattr(found, name), expected[name])
    close(jnp.moveaxis(found.patch_tokens[3], -1, 1), expected["patch_scale3"])
    close(found.neck_det[0], found.body_det, 0)


@pytest.mark.parametrize("remat", [False, True])
def test_half_precision_has_wide_predictions(remat):
    """Under strict promotion; and each block and layer is computed again, or none."""
    config = dataclasses.replace(SMALLEST, dropout=0.1, drop_path=0.1)
    model = abstract(config, dtype=jnp.bfloat16, remat=remat)
    images, mask = golden_batch(np.float32)
    graphdef, params = nnx.split(model)

    def detect(params):
        return nnx.merge(graphdef, params)(images, mask, key=jax.random.key(0))

    program, found = jax.make_jaxpr(detect, return_shape=True)(params)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert found.logits.dtype == found.boxes.dtype == jnp.float32
    tokens = jax.tree.leaves((found.patch_tokens, found.body_det, found.neck_det))
    assert {x.dtype for x in tokens} == {jnp.dtype("bfloat16")}
    names = [equation.primitive.name for equation in program.eqns]
    blocks = sum(config.depths) + config.neck_layers
    assert sum("remat" in name for name in names) == (blocks if remat else 0)


def test_keys_of_the_neck():
    """Without a key nothing is dropped."""
    config = dataclasses.replace(SMALLEST, neck_layers=1, dropout=0.1)
    models = golden_vidt(config), golden_vidt(dataclasses.replace(config, dropout=0.0))
    neck, key = neck_input(), jax.random.key(0)
    dropped, kept, same = compiled(
        lambda dropping, plain: [
            dropping.decode(neck, key=key).neck_det,
            dropping.decode(neck).neck_det,
            plain.decode(neck, key=key).neck_det,
        ],
        *models,
    )
    assert not np.allclose(dropped[1], kept[1])
    close(kept, same, 1e-5)


def test_keys_of_a_block():
    """Both residuals of an image are dropped or not, of patches and tokens together."""
    layers = Layers(nnx.Rngs(0))
    block = Block(8, 2, 4, 0, position_width=4, drop_path=0.5, layers=layers)
    patches, tokens = jnp.ones((20, 4, 4, 8)), jnp.ones((20, 2, 8))
    dropped, kept = compiled(
        lambda *keys: [
            block(patches, tokens, jnp.ones((1, 2, 4)), None, key)
            for key in (*keys, None)
        ],
        jax.random.key(0),
    )
    unchanged = [
        [(x == 1).reshape(20, -1).all(1) for x in pair] for pair in (dropped, kept)
    ]
    np.testing.assert_array_equal(*unchanged[0])
    assert 0 < unchanged[0][0].sum() < 20
    assert not np.any(unchanged[1])


def test_dropout_keeps_the_mean():
    x = jnp.ones((10_000, 2))
    dropped = dropout(x, 0.2, jax.random.key(0), axes=1)
    assert set(np.unique(dropped)) == {0, np.float32(1.25)}
    assert abs(dropped.mean() - 1) < 0.02
    assert (dropped[:, 0] == dropped[:, 1]).all()


def test_drop_path_grows_linearly():
    rates = [
        block.drop_path
        for stage in abstract(CONFIGS["vidt_tiny"]).backbone.layers
        for block in stage.blocks
    ]
    close(rates, np.linspace(0, 0.2, 12))


def test_no_gradient_passes_between_levels():
    model = golden_vidt(dataclasses.replace(SMALLEST, neck_layers=1))
    neck = neck_input()

    def losses(state):
        found = nnx.merge(nnx.graphdef(model.neck), state)(neck)
        return found.boxes.sum((1, 2, 3))

    def run(state):
        return jax.jacrev(losses)(state)

    grads = nnx.to_pure_dict(compiled(run, nnx.state(model.neck)))

    def reaches(tree):
        """Whether each level reaches any leaf."""
        leaves = [x.reshape(2, -1).any(1) for x in jax.tree.leaves(tree)]
        return np.any(leaves, 0).tolist()

    assert [reaches(grads["bbox_embed"][level]) for level in (0, 1)] == [
        [True, False],
        [False, True],
    ]
    assert reaches(grads["reference_points"]) == [True, False]
    assert reaches(grads["layers"]) == [False, True]


def test_distillation_reaches_all_but_the_heads():
    model = abstract(SMALLEST)
    graphdef, params = nnx.split(model)
    images, mask = golden_batch(np.float32)

    def losses(params):
        found = nnx.merge(graphdef, params)(images, mask)
        task = found.logits.sum() + found.boxes.sum()
        return task, found.neck_det.sum() + sum(x.sum() for x in found.patch_tokens)

    task, distill = kdopt.reachable(losses)(params)
    assert all(jax.tree.leaves(task))
    flat = nnx.to_flat_state(distill)
    of_task = {path[1] for path, reached in flat if not reached.get_value()}
    assert of_task == {"class_embed", "bbox_embed", "reference_points"}


def test_decode_of_encode_is_call():
    model = abstract(SMALLEST)
    images, mask = golden_batch(np.float32)
    neck = nnx.eval_shape(Vidt.encode, model, images, mask)
    assert [x.shape for x in neck.scales] == [
        *[(2, 12, 10, 32), (2, 6, 5, 32), (2, 3, 3, 32), (2, 2, 2, 32)]
    ]
    assert {x.shape for x in (neck.det, neck.positions)} == {(2, 3, 32)}
    assert [x.shape for x in neck.masks] == [x.shape[:3] for x in neck.scales]
    parts = nnx.eval_shape(lambda model, *z: model.decode(NeckInput(*z)), model, *neck)
    whole = nnx.eval_shape(Vidt.__call__, model, images, mask)
    assert jax.tree.map(jnp.shape, parts) == jax.tree.map(jnp.shape, whole)


# Sizes and initial values.


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("vidt_nano", 15_728_677),
        ("vidt_tiny", 37_962_901),
        ("vidt_small", 60_465_061),
        ("vidt_base", 99_959_635),
        ("vidt_toy", 1_104_279),
    ],
)
def test_published_parameter_counts(name, published):
    shapes = weights.shapes(abstract(CONFIGS[name]))
    assert sum(map(math.prod, shapes.values())) == published


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "published"),
    [("nano", 34.8e9), ("tiny", 107.5e9), ("small", 196.1e9), ("base", 338.5e9)],
)
def test_published_multiply_adds(name, published):
    """Up to the projection of padded patches, which are cut off before it here."""
    counts = cost(CONFIGS[f"vidt_{name}"])
    assert 0.99 < (counts.encode + counts.decode) / published < 1
    assert counts.shared == (20_197 + 2 * 100) * 256


def test_initial_values():
    config = dataclasses.replace(GOLDEN, embed=16, heads=(1, 2, 4, 8), depths=(1,) * 4)
    make = nnx.jit(lambda: Vidt(config, rngs=nnx.Rngs(0)))
    model = make.lower().compile(_compiler.FASTEST)()
    neck, body = model.neck, model.backbone
    for head in neck.class_embed:
        close(head.bias, math.log(1 / 99) * np.ones(10, np.float32), 1e-6)
    for level, head in enumerate(neck.bbox_embed):
        assert not head.layers[2].kernel[...].any()
        size = 0.0 if level else -2.0
        assert head.layers[2].bias[...].tolist() == [0, 0, size, size]
    attention = neck.layers[1].cross_attn
    assert not attention.sampling_offsets.kernel[...].any()
    assert not attention.attention_weights.kernel[...].any()
    offsets = np.asarray(attention.sampling_offsets.bias[...]).reshape(4, 4, 4, 2)
    ones = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])[:, None]
    for scale in range(4):
        close(offsets[:, scale], ones * np.arange(1, 5)[:, None], 1e-6)
    for matrix, spread in (
        (body.layers[1].blocks[0].mlp.fc1.kernel, 0.02),
        (body.det_token, 0.02),
        (body.layers[2].downsample.reduction.kernel, 0.02),
        # Uniform up to sqrt(6 / (inputs + outputs)) and 1 / sqrt(inputs).
        (neck.layers[0].self_attn.in_proj.kernel, math.sqrt(2 / (64 + 192))),
        (model.input_proj[0].linear.kernel, math.sqrt(2 / (32 + 64))),
        (body.layers[3].downsample.reduction.kernel, math.sqrt(1 / 3 / (4 * 128))),
        (body.layers[0].blocks[0].det_pos_linear.kernel, math.sqrt(1 / 3 / 64)),
    ):
        assert abs(matrix[...].std() / spread - 1) < 0.1
    assert body.layers[0].blocks[0].det_pos_linear.bias[...].any()
    assert not body.layers[0].blocks[0].mlp.fc1.bias[...].any()


def test_widths_must_fit():
    with pytest.raises(ValueError, match="multiple of 32"):
        dataclasses.replace(GOLDEN, width=48)
    with pytest.raises(ValueError, match="stage 0 has width 30, which its 4 heads"):
        VidtConfig(30, (1, 1, 1, 1), (4, 4, 4, 4))
