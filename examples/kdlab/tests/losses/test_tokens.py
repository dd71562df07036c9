"""Losses of vision transformers on inputs made by a formula, in double precision.

The expected values come from PyTorch programs with the code of the papers' authors.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.test_util import check_grads

from kdlab.data.augmentation.mixing import targets
from kdlab.losses import projectors, self_teaching, similarities
from kdlab.losses.base import Batch, Setting
from kdlab.losses.table import LOSSES
from kdlab.losses.tokens import srd
from kdlab.models import Outputs
from kdlab.settings.parts import Distillation
from kdopt import losses

pytestmark = pytest.mark.usefixtures("standard")

LABELS = np.array([3, 1, 7, 0])


def wave(shape, a, b, c):
    """Returns c sin(a n + b) over the n-th element."""
    return (c * np.sin(a * np.arange(np.prod(shape)) + b)).reshape(shape)


def polar(x):
    left, _, right = np.linalg.svd(x, full_matrices=False)
    return left @ right


CLASS = wave((4, 10), 0.7, 0.1, 2)
TOKEN = wave((4, 10), 0.9, 0.5, 2)
TEACHER = wave((4, 10), 1.3, 0.4, 3)
PATCHES = wave((4, 9, 6), 0.37, 0.2, 1)
MAPS = wave((4, 16, 3, 3), 0.53, 0.9, 1.5).transpose(0, 2, 3, 1)
MATRIX = wave((16, 6), 0.23, 0.4, 0.5)


def outputs(logits, **others):
    return Outputs(jnp.asarray(logits), (), (), jnp.zeros((4, 1)), **others)


def batch(**others):
    return Batch(
        images=None,
        labels=targets(jnp.asarray(LABELS), 10, 0.3, 0.1),
        weights=jnp.ones(4),
        key=jax.random.key(0),
        teacher=outputs(TEACHER),
        **others,
    )


def made(name, **options):
    return LOSSES[name](Setting(Distillation(name, **options)), nnx.Rngs(0))


def value(name, **options):
    loss = made(name, **options)

    @jax.jit
    def of(logits, token):
        student = outputs(logits, distill_logits=token)
        return loss(student.logits, loss.compare(student, batch()), batch())

    return of(CLASS, TOKEN)


def test_task_on_mixed_targets(x64):
    goal = targets(jnp.asarray(LABELS), 10, 0.3, 0.1)
    np.testing.assert_allclose(goal[0, [0, 3, 1]], [0.64, 0.28, 0.01])
    task = losses.cross_entropy(CLASS, goal)
    np.testing.assert_allclose(task, 3.0153670234, rtol=1e-10)
    smooth = targets(jnp.asarray(LABELS), 10, 1.0, 0.1)
    task = losses.cross_entropy(CLASS, smooth)
    np.testing.assert_allclose(task, 1.9700683554, rtol=1e-10)


def test_losses_on_the_distillation_token(x64):
    hard, task = value("deit_hard"), 3.0153670234
    np.testing.assert_allclose(hard, 2.2285769745, rtol=1e-10)
    np.testing.assert_allclose((task + hard) / 2, 2.6219719989, rtol=1e-10)
    one, three = (value("deit_soft", temperature=t) for t in (1.0, 3.0))
    np.testing.assert_allclose(one, 0.1540719222, rtol=1e-9)
    np.testing.assert_allclose(three, 0.2702901441, rtol=1e-9)
    np.testing.assert_allclose((task + one) / 2, 1.5847194728, rtol=1e-10)
    np.testing.assert_allclose(0.9 * task + 0.1 * three, 2.7408593355, rtol=1e-10)


@jax.jit
def vkd_tokens(matrix):
    student = outputs(
        CLASS, distill_logits=jnp.asarray(TOKEN), tokens=jnp.asarray(PATCHES)
    )
    teacher = outputs(TEACHER)._replace(features=(jnp.asarray(MAPS),))
    setting = Setting(Distillation("vkd_tokens"), student=student, teacher=teacher)
    loss = LOSSES["vkd_tokens"](setting, nnx.Rngs(0))
    loss.projector.matrix = lambda: matrix.T
    given = batch()._replace(teacher=teacher)
    return loss(student.logits, loss.compare(student, given), given)


def test_vkd_on_tokens(x64):
    """With a projector of zeros as the released code has it, and with any other."""
    kl, features = vkd_tokens(np.zeros((16, 6)))
    np.testing.assert_allclose(kl, 1.5407192217, rtol=1e-10)
    np.testing.assert_allclose(features, 0.4745073159, rtol=1e-9)
    matrix = polar(np.random.default_rng(0).normal(size=(16, 6)))
    means = MAPS.mean((1, 2))
    goal = means - means.mean(1, keepdims=True)
    goal = goal / np.sqrt(means.var(1, keepdims=True) + 1e-5)
    gaps = abs(PATCHES.mean(1) @ matrix.T - goal)
    expected = np.where(gaps < 1, gaps**2 / 2, gaps - 0.5).mean()
    np.testing.assert_allclose(vkd_tokens(matrix)[1], expected, rtol=1e-10)


def test_srd(x64):
    projected = PATCHES.mean(1) @ MATRIX.T + wave((16,), 0.5, 0.3, 0.1)
    teacher = MAPS.mean((1, 2))
    found = jax.jit(srd)(projected, teacher, jnp.ones(4))
    np.testing.assert_allclose(found, 0.6462342328, rtol=1e-9)
    # A masked example changes nothing.
    more = (np.concatenate([x, 9 * x[:1]]) for x in (projected, teacher))
    masked = jax.jit(srd)(*more, jnp.array([1.0, 1.0, 1.0, 1.0, 0.0]))
    np.testing.assert_allclose(masked, found, rtol=1e-12)


def test_terms_of_the_manifold_loss(x64):
    theirs = wave((4, 9, 8), 0.53, 0.9, 1.5)
    ours, theirs = (
        jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))
        for x in (PATCHES, theirs)
    )
    ones = jnp.ones(4)
    patch = jax.jit(similarities.patch_term)(ours, theirs, ones)
    sample = jax.jit(similarities.sample_term)(ours, theirs, ones)
    rows = jnp.ones(36), jnp.arange(12)
    some = jax.jit(similarities.random_term)(ours, theirs, *rows)
    np.testing.assert_allclose(patch, 0.2445563849, rtol=1e-9)
    np.testing.assert_allclose(sample, 0.6648811880, rtol=1e-9)
    np.testing.assert_allclose(some, 0.3564575099, rtol=1e-9)
    whole = similarities.manifold(PATCHES, 3 * theirs, ones, jax.random.key(0))
    every = similarities.random_term(ours, theirs, jnp.ones(36), jnp.arange(36))
    np.testing.assert_allclose(whole, 4 * patch + 0.1 * sample + 0.2 * every)


def test_terms_of_self_teaching_by_loops(x64):
    goals = np.asarray(targets(jnp.asarray(LABELS), 10, 0.3, 0.0))
    probs, weak = (np.asarray(jax.nn.softmax(jnp.asarray(x))) for x in (CLASS, TOKEN))
    top = np.argsort(-goals, 1)[:, :2]
    squares = np.take_along_axis(probs, top, 1) ** 2
    target, others = [], []
    for b in range(4):
        target.append(
            -sum(
                (squares[b, i] + goals[b, c] - squares[:, i].mean())
                * np.log(probs[b, c])
                for i, c in enumerate(top[b])
            )
        )
        rest = [c for c in range(10) if c not in top[b]]
        order = sorted(rest, key=lambda c: -(probs[b, c] + weak[b, c]))
        share = 1 / np.arange(1, 9) / sum(1 / np.arange(1, 9))
        total = probs[b, rest].sum()
        others.append(
            -sum(
                s * np.log(probs[b, c] / total)
                for s, c in zip(share, order, strict=True)
            )
        )
    ones = jnp.ones(4)
    found = self_teaching.target_term(jnp.asarray(CLASS), jnp.asarray(goals), ones)
    np.testing.assert_allclose(found, np.mean(target), rtol=1e-10)
    found = self_teaching.non_target_term(
        jnp.asarray(CLASS), jnp.asarray(TOKEN), jnp.asarray(goals), ones
    )
    np.testing.assert_allclose(found, np.mean(others), rtol=1e-10)


def test_self_teaching_without_mixing_has_one_target(x64):
    hard = jax.nn.one_hot(LABELS, 10)
    found = self_teaching.target_term(jnp.asarray(CLASS), hard, jnp.ones(4))
    log_probs = np.asarray(jax.nn.log_softmax(jnp.asarray(CLASS)))[np.arange(4), LABELS]
    squares = np.exp(2 * log_probs)
    np.testing.assert_allclose(
        found, -np.mean((squares + 1 - squares.mean()) * log_probs), rtol=1e-10
    )
    others = self_teaching.non_target_term(
        jnp.asarray(CLASS), jnp.asarray(TOKEN), hard, jnp.ones(4)
    )
    assert np.isfinite(others) and others > 0


GRADIENTS = {
    "deit_hard": lambda z: losses.cross_entropy(z, jnp.argmax(TEACHER, -1)),
    "deit_soft": lambda z: losses.kd(z, TEACHER, temperature=3.0) / 10,
    "srd": lambda z: srd(z, TEACHER, jnp.ones(4)),
    "manifold": lambda z: similarities.manifold(
        z.reshape(2, 4, 5), TOKEN.reshape(2, 4, 5), jnp.ones(2), jax.random.key(0)
    ),
    "uskd": lambda z: self_teaching.non_target_term(
        z, TOKEN, jax.nn.one_hot(LABELS, 10), jnp.ones(4)
    ),
    "vkd": lambda z: losses.vkd(z, TEACHER),
    "householder": lambda z: jnp.sum(jnp.sin(projectors.reflect(z.T))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_differences(name, x64):
    check_grads(GRADIENTS[name], (jnp.asarray(0.7 * CLASS),), order=1, modes=["rev"])


def test_householder_reflections(x64):
    found = projectors.reflect(jnp.asarray(wave((5, 3), 0.7, 0.1, 0.5)))
    expected = [-0.30204268, 0.77955559, -0.42258750]
    np.testing.assert_allclose(found[0], expected, atol=1e-8)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-14)


def trained(kind, steps):
    """Returns the matrices of a projector over steps of AdamW with decay of all."""
    ours, theirs = jnp.asarray(PATCHES.mean(1)), jnp.asarray(MAPS.mean((1, 2)))
    module = kind(ours.astype(float), theirs, rngs=nnx.Rngs(0))
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)
    tx = optax.adamw(5e-4, weight_decay=0.05)

    def project(params):
        return nnx.merge(graphdef, params, rest, copy=True)

    def step(carry, _):
        params, state = carry
        loss = lambda p: losses.vkd(project(p)(ours), theirs)  # noqa: E731
        found, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        norm = optax.tree.norm(grads)
        return (params, state), (project(params).matrix(), norm, found)

    start = params, tx.init(params)
    return jax.jit(lambda c: jax.lax.scan(step, c, length=steps)[1])(start)


def test_projector_stays_orthogonal_under_decay():
    matrices, norms, values = trained(projectors.OrthogonalProjector, 100)
    grams = jnp.einsum("tij,tkj->tik", matrices, matrices)
    np.testing.assert_allclose(grams, np.tile(np.eye(6), (100, 1, 1)), atol=1e-5)
    assert np.all(norms > 0) and values[-1] < values[0]


def test_released_projector_is_zero_after_a_step():
    matrices, norms, values = trained(projectors.HouseholderProjector, 3)
    np.testing.assert_array_equal(matrices, 0)
    assert norms[0] > 0 and not np.any(norms[1:])
    assert values[1] == values[2] != values[0]
