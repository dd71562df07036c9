"""Transformers: sizes, the two heads, stochastic depth, chosen patches, faults."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kdopt
from _vit_golden import TRANSFORMERS, tiny
from kdlab import models
from kdlab.models import weights
from kdlab.models._blocks import Layers
from kdlab.models.transformers import _layers
from kdlab.models.transformers._trunk import StochasticDepth, Trunk
from kdlab.models.transformers.cait import CaiT, ClassAttention
from kdlab.models.transformers.deit import DeiT
from kdlab.models.transformers.deit3 import DeiT3

KINDS = ("distilled", "deit3", "cait")
FIRST = "deit_ti_distilled"


def normal(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(values, jnp.float32)


def layers(**options):
    return Layers(nnx.Rngs(0), **options)


# All others have the layers of one of these.
CHOSEN = (FIRST, "deit_s_distilled", "deit_ti_conv", "vit_tiny32", "deit3_b")
CHOSEN += ("cait_s24",)


def slow(chosen):
    """Marks those transformers that are not among the chosen ones."""
    marks = pytest.mark.slow
    return [x if x in chosen else pytest.param(x, marks=marks) for x in TRANSFORMERS]


@pytest.mark.parametrize("name", slow(CHOSEN))
def test_parameters_and_tensors(name):
    parameters, _, tensors = TRANSFORMERS[name]
    model = nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0)))
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert sum(leaf.size for leaf in leaves) == parameters
    assert len(weights.torch_shapes(name, model)) == tensors


@pytest.mark.parametrize("name", slow([FIRST]))
def test_multiply_adds(name):
    """Also of blocks in a loop and in a program within the program."""
    _, millions, _ = TRANSFORMERS[name]
    counts = models.summary(name, remat=True, scan=True).multiply_adds / 1e6
    if millions is not None:
        assert counts == pytest.approx(millions, abs=0.051)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 16, 3)])
def test_shapes_of_outputs(shape):
    outputs = models.summary("vit_tiny32", num_classes=10, image_shape=shape).outputs
    rows, columns = shape[0] // 4, shape[1] // 4
    assert outputs.logits.shape == outputs.distill_logits.shape == (1, 10)
    assert outputs.pooled.shape == (1, 128)
    assert outputs.tokens.shape == (1, rows * columns, 128)
    assert outputs.attention.shape == (1, 4, rows * columns)
    # The stem and five blocks.
    assert [x.shape for x in outputs.features] == [(1, rows, columns, 128)] * 6


def test_convolutional_networks_have_no_tokens():
    outputs = models.summary("mlp").outputs
    assert outputs.distill_logits is outputs.tokens is outputs.attention is None


@functools.partial(jax.jit, static_argnums=0)
def run(graphdef, state, x, patches=None):
    return nnx.merge(graphdef, state, copy=True)(x, patches)


def test_logits_of_the_two_heads():
    model, _ = tiny("distilled", jnp.float32)
    x = normal(2, 32, 32, 3)
    trained = run(*nnx.split(model), x)
    model.eval()
    evaluated = run(*nnx.split(model), x)
    cls, own = np.asarray(trained.logits), np.asarray(trained.distill_logits)
    assert not np.allclose(cls, own)
    np.testing.assert_allclose(evaluated.logits, (cls + own) / 2, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(evaluated.distill_logits, own, rtol=1e-4, atol=1e-6)
    kernel, bias = (
        np.asarray(p[...]) for p in (model.classifier.kernel, model.classifier.bias)
    )
    pooled = np.asarray(trained.pooled)
    np.testing.assert_allclose(pooled @ kernel + bias, cls, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [_layers.Attention, ClassAttention])
def test_attention_of_the_first_token_is_that_of_the_layer(layer):
    @jax.jit
    def both(x):
        attention = layer(8, 2, _layers.matrix_layers(layers()))
        value = attention.v if layer is ClassAttention else attention.qkv
        shares = attention.attention_of_first(x)
        heads = _layers.split_heads(value(x)[..., -8:], 2)
        mixed = jnp.einsum("bhn,bnhd->bhd", shares, heads).reshape(2, 1, 8)
        return shares, attention.proj(mixed), attention(x)[:, :1]

    shares, found, expected = both(normal(2, 5, 8))
    assert shares.shape == (2, 2, 5)
    np.testing.assert_allclose(np.sum(shares, -1), 1, rtol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_chosen_patches(kind):
    """All patches in another order give the same logits; half of them do not."""
    model, _ = tiny(kind, jnp.float32)
    x = normal(2, 32, 32, 3)
    graphdef, state = nnx.split(model)
    order = np.stack([np.random.default_rng(i).permutation(16) for i in range(2)])
    kept = np.arange(2)[:, None], order
    whole, turned = run(graphdef, state, x), run(graphdef, state, x, order)
    np.testing.assert_allclose(turned.logits, whole.logits, atol=1e-5)
    np.testing.assert_allclose(turned.tokens, np.asarray(whole.tokens)[kept], atol=1e-5)
    # Repeated patches stand for a choice, and need no other program.
    some = run(graphdef, state, x, order % 8)
    assert np.abs(some.logits - whole.logits).max() > 1e-2
    half = jax.eval_shape(
        functools.partial(run, graphdef), state, x, jnp.asarray(order[:, :8])
    )
    assert half.tokens.shape == (2, 8, 32) and half.attention.shape[-1] == 8
    assert half.features[-1].shape == (2, 1, 8, 32)
    # An image's outputs do not depend on the others of its batch.
    others = run(graphdef, state, x * jnp.asarray([1.0, -2.0])[:, None, None, None])
    np.testing.assert_allclose(others.logits[0], whole.logits[0], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_rematerialised_by_option(kind):
    counts = []
    for remat in (False, True):
        model, _ = tiny(kind, jnp.float32, remat=remat)
        program = jax.make_jaxpr(functools.partial(run, nnx.graphdef(model)))(
            nnx.state(model), normal(1, 32, 32, 3)
        )
        text = str(program)
        counts.append(text.count("remat2[") + text.count("checkpoint["))
    assert counts == [0, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_turns_of_a_loop_by_option(kind):
    (model, _), x = tiny(kind, jnp.float32), normal(1, 32, 32, 3)
    looped, _ = tiny(kind, jnp.float32, scan=True)
    expected, found = (run(*nnx.split(one), x) for one in (model, looped))
    for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    program = jax.make_jaxpr(functools.partial(run, nnx.graphdef(looped)))(
        nnx.state(looped), x
    )
    assert str(program).count("scan[") == 1


def test_remat_and_scan_change_no_gradient():
    """Also with stochastic depth, whose draw is made before the blocks."""

    def gradient(x, **options):
        trunk = Trunk(
            [_layers.Block(_layers.Attention(8, 2, layers()), 8, layers())] * 2,
            [0.5, 0.25],
            rngs=nnx.Rngs(0),
            **options,
        )
        graphdef, params, rest = nnx.split(trunk, nnx.Param, ...)

        def loss(params):
            ends = nnx.merge(graphdef, params, rest, copy=True)(x)
            assert len(ends) == 3
            return sum(jnp.sum(end**2) for end in ends[1:])

        return jax.grad(loss)(params)

    @jax.jit
    def gradients(x):
        plain = gradient(x, remat=False)
        options = {"remat": True}, {"remat": False, "scan": True}
        options += ({"remat": True, "scan": True},)
        return plain, [gradient(x, **chosen) for chosen in options]

    plain, others = gradients(normal(4, 3, 8))
    for other in others:
        for kept, again in zip(*map(jax.tree.leaves, (plain, other)), strict=True):
            assert np.any(kept)
            np.testing.assert_allclose(again, kept, rtol=1e-4, atol=1e-5)


def test_branches_are_dropped_at_their_rates_and_scaled():
    rates = [0.0, 0.25, 0.5]
    depth = StochasticDepth(rates, nnx.Rngs(0))
    kept, again = (np.asarray(depth(4000)) for _ in range(2))
    assert kept.shape == (3, 2, 4000)
    for block, rate in zip(kept, rates, strict=True):
        assert set(np.unique(block)) <= {0, np.float32(1 / (1 - rate))}
        # Five standard deviations of a mean of 4,000 draws.
        np.testing.assert_allclose(np.mean(block == 0, -1), rate, atol=0.04)
    # The two branches, and the next draw, are independent of it.
    assert np.mean((kept[2] == 0).all(0)) == pytest.approx(0.25, abs=0.04)
    assert np.mean(kept[2] == again[2]) == pytest.approx(0.5, abs=0.04)
    depth.eval()
    assert depth(4000) is None


def test_a_dropped_branch_leaves_the_tokens():
    model, _ = tiny("deit3", jnp.float32)
    graphdef, state = nnx.split(model.trunk.blocks[0])
    x = normal(2, 17, 32)

    @jax.jit
    def both(state, x):
        block = nnx.merge(graphdef, state)
        branch = block.attn(block.norm1(x)) * block.gamma_1[...][None, None]
        return branch, block(x, jnp.asarray([[0.0, 2.0], [0.0, 0.0]]))

    branch, found = both(state, x)
    np.testing.assert_array_equal(found[0], x[0])
    np.testing.assert_allclose(found[1], x[1] + 2 * branch[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "expected"),
    [(DeiT, (0.0, 0.05, 0.1)), (DeiT3, (0.1,) * 3), (CaiT, (0.1,) * 3)],
)
def test_rules_of_the_rates(network, expected):
    """Linear in DeiT, constant in the others."""
    model = nnx.eval_shape(
        lambda: network(
            *(8, 3, 1),
            drop_path=0.1,
            num_classes=2,
            image_shape=(16, 16, 1),
            layers=layers(),
        )
    )
    assert model.trunk.drop_path.rates == pytest.approx(expected)


def test_layer_norm_of_far_means_and_small_deviations():
    norm = _layers.layer_norm(64, layers())
    x = np.random.default_rng(0).normal(size=(1, 3, 64))
    for value in (3000 + x, 1e-3 * x):
        wide = np.asarray(value, np.float32).astype(np.float64)
        deviation = wide - wide.mean(-1, keepdims=True)
        expected = deviation / np.sqrt((deviation**2).mean(-1, keepdims=True) + 1e-6)
        found = norm(jnp.asarray(value, jnp.float32))
        np.testing.assert_allclose(found, expected, atol=2e-3)
    half = norm(jnp.asarray(value, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16


def test_initial_values():
    """Normal to its tails, where a truncated one ends at two deviations."""

    def make():
        return DeiT(
            *(64, 1, 2),
            distilled=True,
            patch=4,
            num_classes=10,
            image_shape=(32, 32, 3),
            layers=layers(),
        )

    graphdef = nnx.graphdef(nnx.eval_shape(make))
    model = nnx.merge(graphdef, jax.jit(lambda: nnx.state(make()))())
    block = model.trunk.blocks[0]
    for leaf in (block.attn.qkv.kernel, block.mlp.fc2.kernel, model.pos_embed):
        values = np.asarray(leaf[...])
        assert np.std(values) == pytest.approx(0.02, rel=0.05)
        assert 0.04 < np.max(np.abs(values)) < 0.12
    for leaf in (block.attn.qkv.bias, model.distill_classifier.bias, model.norm.bias):
        assert not np.any(leaf[...])
    bound = 1 / np.sqrt(48)
    for leaf in (model.stem.proj.kernel, model.stem.proj.bias):
        assert 0.8 * bound < np.max(np.abs(np.asarray(leaf[...]))) <= bound


def test_factors_of_the_branches_start_small():
    factors = _layers.branch_factors(8, 1e-5, layers())
    np.testing.assert_array_equal(factors[...], np.full(8, 1e-5, np.float32))
    assert _layers.branch_factors(8, None, layers()) is None


def test_half_precision_in_and_parameters_wide():
    model = nnx.eval_shape(
        lambda: models.create("vit_tiny32", rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
    )
    graphdef, state = nnx.split(model)
    image = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    outputs = jax.eval_shape(
        lambda state, x: nnx.merge(graphdef, state, copy=True)(x), state, image
    )
    assert outputs.attention.dtype == jnp.float32
    others = jax.tree.leaves(outputs._replace(attention=None))
    assert {leaf.dtype for leaf in others} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}


def test_each_head_learns_from_its_own_logits():
    """The task reaches everything but the other head, and so does distillation."""
    model = nnx.eval_shape(
        lambda: models.create("vit_tiny32", rngs=nnx.Rngs(0), max_blocks=1)
    )
    graphdef, params = nnx.split(model)

    def losses(params, x):
        outputs = nnx.merge(graphdef, params, copy=True)(x)
        return jnp.sum(outputs.logits), jnp.sum(outputs.distill_logits)

    task, distill = kdopt.reachable(losses)(params, normal(2, 32, 32, 3))
    for mask, other in ((task, "distill_classifier"), (distill, "classifier")):
        for path, reached in nnx.to_flat_state(mask):
            assert reached.get_value() == (path[0] != other), path


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (FIRST, {"image_shape": (224, 230, 3)}, "224 x 230.* patches of 16 x 16"),
        ("vit_tiny32", {"image_shape": (30, 32, 3)}, "expected multiples of 4"),
        (FIRST, {"stem": "convolution"}, "expected 'patch' or 'conv'"),
        ("deit_ti_conv", {"patch": 7}, "needs an even number"),
        ("vit_tiny32", {"drop_path": 1.0}, "drop_path is 1.0; expected at least 0"),
        ("vit_tiny32", {"drop_path": -0.1}, "drop_path is -0.1; expected at least 0"),
    ],
)
def test_errors(name, options, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **options))
