"""Losses, gradients and steps of distilled transformers, against golden values.

They were computed with PyTorch, timm and the code of the papers' authors in double
precision; see `golden/README.md` and `_vit_golden.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import kdopt
from _vit_golden import golden, images, mixed, tiny, uniform
from kdlab.data import AUGMENTATIONS
from kdlab.data.augmentation.mixing import mixup, targets
from kdlab.losses.base import Batch, Pupil, Setting
from kdlab.losses.table import LOSSES
from kdlab.models import Outputs
from kdlab.models.network import Network
from kdlab.settings.parts import Training
from kdlab.train.decay import DECAYED
from kdlab.train.methods import METHODS, make_numbers
from kdlab.train.problem import Problem
from kdlab.train.reach import trace_reach

pytestmark = pytest.mark.usefixtures("standard")

LABELS = jnp.array([3, 1, 7, 0])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def make_problem(name, student, teacher, setting=Setting()):  # noqa: B008
    loss = LOSSES[name](setting, nnx.Rngs(0))
    pupil = Network.of(Pupil(student, loss))
    images = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "augment": AUGMENTATIONS["none"]}
    return pupil, Problem(pupil.graphdef, teacher, LOSSES[name], steps=1, **images)


def make_batch(pupil, images, teacher):
    return Batch(
        images=images,
        labels=targets(LABELS, 10, 0.3, 0.1),
        weights=jnp.ones(4),
        rest=pupil.rest,
        key=jax.random.key(0),
        progress=jnp.ones(()),
        teacher=teacher,
    )


def hard():
    """DeiT's hard distillation of the small network on four mixed images."""
    pupil, problem = make_problem("deit_hard", tiny("distilled")[0], None)
    wave = (3 * jnp.sin(1.3 * jnp.arange(40.0) + 0.4)).reshape(4, 10)
    teacher = Outputs(wave, (), (), jnp.zeros((4, 1)))
    batch = make_batch(pupil, mixup(jnp.asarray(images(4, 32)), 0.3), teacher)
    return pupil, problem, batch


@pytest.mark.parametrize(
    ("decayed", "count", "expected"),
    [
        ("deit", 12, [2.64607124, 1.55898513, 1.35505976, 1.54587902]),
        pytest.param(
            *("timm", 11, [2.64607124, 1.55897295, 1.35502854, 1.54592551]),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_four_steps_of_hard_distillation(decayed, count, expected, x64):
    pupil, problem, batch = hard()
    flags = jax.tree.leaves(DECAYED[decayed](pupil.params))
    assert (sum(flags), len(flags)) == (count, 35)
    training = Training(
        optimizer="adamw", decayed=decayed, weight_decay=0.05, learning_rate=1e-2
    )
    tx = METHODS["kd"](make_numbers(training, weights=(0.5, 0.5)), lambda _: 1e-2).tx
    grads_fn = kdopt.value_and_weighted_grad(problem.losses_fn, has_aux=True)
    half = jnp.array([0.5, 0.5])

    @jax.jit
    def step(params, state):
        (values, _), grads = grads_fn(params, batch, weights=half)
        updates, state = tx.update(grads, state, params, values=values)
        return optax.apply_updates(params, updates), state, half @ values, grads

    params, state, found = pupil.params, tx.init(pupil.params), []
    for i in range(4):
        params, state, loss, grads = step(params, state)
        found.append(loss)
        if i == 0:
            check_norms(grads)
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def check_norms(grads):
    network = grads["network"]
    total = jax.jit(optax.tree.norm)(grads)
    np.testing.assert_allclose(total, 7.59191935, rtol=1e-8)
    expected = {
        "cls_token": 0.77846451,
        "dist_token": 0.38894789,
        "pos_embed": 0.99064042,
    }
    for name, norm in expected.items():
        np.testing.assert_allclose(
            np.linalg.norm(network[name].ravel()), norm, rtol=1e-7
        )
    inner = {
        4.63717255: network["stem"]["proj"],
        2.64207481: network["trunk"]["blocks"][0]["attn"]["qkv"],
        1.61488967: network["classifier"],
        1.08050197: network["distill_classifier"],
    }
    for norm, layer in inner.items():
        np.testing.assert_allclose(
            np.linalg.norm(layer["kernel"].ravel()), norm, rtol=1e-7
        )


def polar(x):
    left, _, right = np.linalg.svd(x, full_matrices=False)
    return left @ right


def three_losses():
    """VkD of a transformer with a convolutional stem under a RegNetY."""
    student, teacher = tiny("vkd")[0], Network.of(tiny("regnet")[0])
    shape = jax.ShapeDtypeStruct((4, 64, 64, 3), float)
    setting = Setting(
        student=jax.eval_shape(Network.of(student).outputs, shape),
        teacher=jax.eval_shape(teacher.outputs, shape),
    )
    pupil, problem = make_problem("vkd_tokens", student, teacher, setting)
    return pupil, problem, make_batch(pupil, jnp.asarray(mixed()), None)


def test_three_losses_and_their_gram_matrix(x64, monkeypatch):
    matrix = jnp.asarray(polar(uniform(64 * 32, 77).reshape(64, 32)))
    projector = "kdlab.losses.projectors.OrthogonalProjector.matrix"
    monkeypatch.setattr(projector, lambda _: matrix.T)
    pupil, problem, batch = three_losses()

    @jax.jit
    def differentiate(params, batch):
        batch = problem.with_teacher(batch, problem.teacher)
        grads_fn = kdopt.value_and_grads(problem.losses_fn, has_aux=True)
        return grads_fn(params, batch)

    (values, rest), grads = differentiate(pupil.params, batch)
    np.testing.assert_allclose(values, golden("tiny_vkd/losses"), rtol=1e-9)
    gram = jax.jit(kdopt.gram)(tuple(tree["network"] for tree in grads))
    np.testing.assert_allclose(gram, golden("tiny_vkd/gram"), rtol=1e-8)
    norm, before = (
        tree["network"]["stem"]["convs"][0]["norm"] for tree in (rest, pupil.rest)
    )
    mean, variance, old = (
        np.asarray(x) for x in (norm["mean"], norm["var"], before["var"])
    )
    np.testing.assert_allclose(mean.sum(), -0.0770315453, rtol=1e-8)
    # PyTorch's running variance is that of a sample, Flax's that of the batch.
    unbiased = 0.9 * old + (variance - 0.9 * old) * 4096 / 4095
    np.testing.assert_allclose(unbiased.sum(), 56.1211652656, rtol=1e-8)

    trunk = trace_reach(problem, pupil, problem.teacher, batch.images, 10).all
    tx = kdopt.restrict(kdopt.dto_kd(num_losses=3, rescale="convex"), trunk)

    @jax.jit
    def first_update(grads, params, values):
        return tx.update(grads, tx.init(params), params, values=values)

    update, state = first_update(grads, pupil.params, values)
    np.testing.assert_allclose(
        state.inner.gram, golden("tiny_vkd/gram_shared"), rtol=1e-8
    )
    convex = jax.jit(functools.partial(kdopt.dto_kd_weights, rescale="convex"))
    shared = convex(state.inner.gram, values)
    np.testing.assert_allclose(state.inner.loss_weights, shared, rtol=1e-12)
    expected = [0.0758486551, 0.0314907716, 0.8926605733]
    np.testing.assert_allclose(convex(gram, values), expected, rtol=1e-8)
    gram, values = np.asarray(gram), np.asarray(values)
    raw = np.asarray(jax.jit(kdopt.dto_kd_weights)(gram, values))
    shares = [0.3033634119, 0.0165267027, 0.6801098855]
    np.testing.assert_allclose(raw * values, shares, rtol=1e-8)
    np.testing.assert_allclose(np.sqrt(raw @ gram @ raw), 3.1541553242, rtol=1e-8)
    # Each head follows its own loss, whatever its weight in the trunk is.
    for i, head in enumerate(("classifier", "distill_classifier")):
        own, updated = (tree["network"][head] for tree in (grads[i], update))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y), own, updated)
