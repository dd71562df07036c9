"""Values of transformers and RegNetY from another implementation (see `golden/`)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from _vit_golden import TINY, TRANSFORMERS, fill, golden, images, mixed, tiny
from kdlab import models

TENSORS = {
    **{"vit": 32, "distilled": 35, "vkd": 49, "deit3": 36, "cait": 62},
    "regnet": 122,
}
PARTS = {
    "distilled": ["cls", "dist", "patch_mean"],
    "vkd": ["eval"],
    "regnet": ["pool", None],
}
# Norms over both images of features: the stem, then the end of each stage or block.
NORMS = {
    "regnet": [124.294547, 14.3648192, 8.28282277, 6.50097920, 3.32906094],
    "cait": [None, 40.0384924, 54.1070227],
    "regnety_160": [375.254669, 394.134110, 287.387445, 325.477446, 199.623078],
    "cait_s24": [None, 588.937085, *[None] * 10, 15773.1734],
}
NORMS["cait_s24"] += [*[None] * 11, 20916.0625]
# The same of all tokens after some blocks, by their number.
TOKENS = {
    "deit_ti_distilled": {1: 269.426058, 6: 658.223832, 12: 1066.09158},
    "deit_s_distilled": {1: 382.751318, 6: 896.707863, 12: 1452.51158},
}


def norm(x):
    return np.linalg.norm(np.asarray(x, np.float64))


@functools.partial(jax.jit, static_argnums=0)
def outputs_of(graphdef, state, x):
    """Outputs, and the state afterwards."""
    model = nnx.merge(graphdef, state, copy=True)
    return model(x), nnx.state(model, nnx.BatchStat)


def run(model, x):
    return outputs_of(*nnx.split(model), x)


def parts(outputs):
    """What the golden values name, of a network in evaluation mode."""
    found = {None: outputs.logits, "eval": outputs.logits, "pool": outputs.pooled}
    if outputs.distill_logits is not None:
        found["cls"] = 2 * outputs.logits - outputs.distill_logits
        found["dist"] = outputs.distill_logits
    if outputs.tokens is not None:
        found["patch_mean"] = np.mean(outputs.tokens, 1)
    return found


def check(outputs, name, expected, tolerance):
    for part in expected:
        key = name if part is None else f"{name}/{part}"
        np.testing.assert_allclose(
            parts(outputs)[part], golden(key), rtol=tolerance, atol=tolerance
        )


def check_features(outputs, name, tolerance):
    for feature, expected in zip(outputs.features, NORMS.get(name, ()), strict=False):
        if expected is not None:
            assert norm(feature) == pytest.approx(expected, rel=tolerance)


@functools.partial(jax.jit, static_argnums=0)
def inside(graphdef, state, x):
    """The stem, the tokens before and after each block, and the normalised ones."""
    model = nnx.merge(graphdef, state, copy=True)
    stem = model.stem(x)
    sequence, before = model.embed(stem)
    assert before == 2
    ends = model.trunk(sequence)
    return stem, ends, model.norm(ends[-1])


def inputs(kind, dtype):
    x = mixed() if kind == "vkd" else images(2, TINY[kind][-1])
    return jnp.asarray(x, dtype)


@pytest.mark.usefixtures("x64", "standard")
@pytest.mark.parametrize("kind", TENSORS)
def test_small_networks_in_double_precision(kind):
    model, tensors = tiny(kind)
    assert tensors == TENSORS[kind]
    model.eval()
    outputs, _ = run(model, inputs(kind, jnp.float64))
    check(outputs, f"tiny_{kind}", PARTS.get(kind, [None]), 1e-10)
    check_features(outputs, kind, 1e-8)


def slow(chosen, kinds):
    marks = pytest.mark.slow
    return [x if x in chosen else pytest.param(x, marks=marks) for x in kinds]


@pytest.mark.parametrize("kind", slow(["distilled", "cait"], TENSORS))
def test_small_networks_in_single_precision(kind):
    model, _ = tiny(kind, jnp.float32)
    model.eval()
    outputs, _ = run(model, inputs(kind, jnp.float32))
    check(outputs, f"tiny_{kind}", PARTS.get(kind, [None]), 1e-5)


@pytest.mark.usefixtures("x64", "standard")
def test_tokens_inside_the_distilled_network():
    model, _ = tiny("distilled")
    stem, ends, last = inside(*nnx.split(model), inputs("distilled", jnp.float64))
    expected = [20.8037985, 37.0021368, 49.0882232, 34.2974608]
    found = [norm(x) for x in (stem, *ends[1:], last)]
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.usefixtures("x64", "standard")
def test_training_of_the_conv_stem():
    """The heads' own logits, and statistics that move by PyTorch's rule."""
    model, _ = tiny("vkd")
    outputs, stats = run(model, inputs("vkd", jnp.float64))
    np.testing.assert_allclose(
        outputs.logits, golden("tiny_vkd/train_cls"), rtol=1e-10, atol=1e-10
    )
    np.testing.assert_allclose(
        outputs.distill_logits, golden("tiny_vkd/train_dist"), rtol=1e-10, atol=1e-10
    )
    before, after = model.stem.convs[0].norm, stats.stem.convs[0].norm
    assert np.sum(after.mean[...]) == pytest.approx(-0.0770315453, abs=1e-9)
    # PyTorch's running variance is unbiased.
    count = 4 * 32 * 32
    kept = 0.9 * np.asarray(before.var[...])
    unbiased = kept + (after.var[...] - kept) * count / (count - 1)
    assert np.sum(unbiased) == pytest.approx(56.1211652656, abs=1e-9)


@pytest.mark.parametrize("kind", slow(["distilled", "cait"], TENSORS))
def test_half_precision_is_near_and_keeps_its_parameters(kind):
    model, _ = tiny(kind, jnp.float32, compute=jnp.bfloat16)
    model.eval()
    outputs, _ = run(model, inputs(kind, jnp.float32))
    part = PARTS.get(kind, [None])[0]
    exact = golden(f"tiny_{kind}" if part is None else f"tiny_{kind}/{part}")
    assert outputs.logits.dtype == outputs.pooled.dtype == jnp.bfloat16
    found = parts(jax.tree.map(lambda x: np.asarray(x, np.float64), outputs))[part]
    assert norm(found - exact) < 0.03 * norm(exact)
    parameters = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert {leaf.dtype for leaf in parameters} == {jnp.dtype("float32")}


FULL = {
    "deit_ti_distilled": ("deit_tiny_distilled_patch16_224", PARTS["distilled"]),
    "deit_s_distilled": ("deit_small_distilled_patch16_224", PARTS["distilled"]),
    "regnety_160": ("regnety_160", PARTS["regnet"]),
    "cait_s24": ("cait_s24_224", [None]),
    "deit3_b": ("deit3_base_patch16_224", [None]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_networks_for_imagenet(name):
    model, tensors = fill(name, lambda: models.create(name, rngs=nnx.Rngs(0)))
    if name in TRANSFORMERS:
        assert tensors == TRANSFORMERS[name][-1]
    model.eval()
    x = jnp.asarray(images(2, 224), jnp.float32)
    outputs, _ = run(model, x)
    check(outputs, *FULL[name], 1e-5)
    check_features(outputs, name, 1e-5)
    if name in TOKENS:
        _, ends, _ = inside(*nnx.split(model), x)
        found = {i: norm(ends[i]) for i in TOKENS[name]}
        assert found == pytest.approx(TOKENS[name], rel=1e-5)
