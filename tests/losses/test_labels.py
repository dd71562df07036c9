"""Soft labels: taken where the loss is an average over labels, else named."""

import functools
import inspect

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from kdopt import losses
from kdopt.losses._labels import are_soft, label_average, target_mask
from tests.losses._inputs import LABELS, logits, vectors, wave

Y = LABELS.astype(np.int32)
OTHER = np.array([2, 5, 7, 9], np.int32)


@pytest.fixture
def untyped():
    """Users run without the type checks of the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def mixed(share, first=Y, second=OTHER):
    """Labels of a mixture, ``[b, c]``."""
    one, two = (np.eye(10, dtype=share.dtype)[y] for y in (first, second))
    return share[:, None] * one + (1 - share[:, None]) * two


def test_kinds():
    assert not are_soft(jnp.asarray(Y), 10)
    assert are_soft(jnp.ones((4, 10)), 10)
    classes, average = np.eye(10, dtype=np.float32), jax.jit(label_average)
    rows, one_hot = 3 * classes, classes[Y]
    np.testing.assert_array_equal(average(Y, rows), rows[Y])
    np.testing.assert_allclose(average(one_hot, rows), rows[Y], rtol=1e-6)
    assert np.sum(jax.jit(target_mask, static_argnums=1)(Y, 10)) == 4


@pytest.mark.parametrize("labels", [jnp.zeros((4, 1), int), jnp.ones(4), jnp.eye(3)])
def test_neither_kind_is_named(labels):
    with pytest.raises(ValueError, match=r"or floating distributions \[b, 10\], got"):
        are_soft(labels, 10)


LABELLED = {
    "cross_entropy": lambda s, t, y: losses.cross_entropy(s, y),
    "dkd": losses.dkd,
    "deepkd": lambda s, t, y: jnp.stack(losses.deepkd(s, t, y, top_k=3)).sum(),
    "tpkd": losses.tpkd,
    "nd": lambda s, t, y: losses.nd(
        s, t, y, jnp.cos(jnp.arange(100.0)).reshape(10, 10)
    ),
    "class_means": lambda s, t, y: jnp.sum(
        jnp.sin(s[:1]) * losses.class_means(s, y, num_classes=10)
    ),
}
"""Every loss with hard labels whose classes are counted."""


def test_every_loss_with_labels_is_here():
    """``crd_init`` takes the labels of a training set, and counts no classes."""
    named = {
        name
        for name in losses.__all__
        if inspect.isfunction(getattr(losses, name))
        and "labels" in inspect.signature(getattr(losses, name)).parameters
    }
    assert named == {*LABELLED, "binary_cross_entropy", "crd_init"}


@pytest.mark.parametrize("name", LABELLED)
def test_a_label_that_is_no_class_leaves_its_example_out(name):
    loss = jax.jit(jax.value_and_grad(LABELLED[name]))
    s, t = map(np.asarray, logits(np.float32))
    rows = np.array([0, 1, 3])
    value, slope = loss(s[rows], t[rows], Y[rows])
    spoilt = np.where(np.arange(4)[:, None] == 2, np.float32(np.nan), s)
    for label in (-1, 10, -100, 255, -(2**31)):
        # What belongs to no class may be anything, as where nothing is labelled.
        got, grad = loss(spoilt, t, np.where(np.arange(4) == 2, np.int32(label), Y))
        np.testing.assert_allclose(got, value, rtol=1e-6)
        grad = np.asarray(grad)
        np.testing.assert_allclose(grad[rows], slope, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(grad[2], 0)


@pytest.mark.parametrize("name", LABELLED)
def test_labels_of_any_kind(name):
    loss, (s, t) = LABELLED[name], logits(np.float32)
    kinds = LABELS.tolist(), LABELS.astype(np.uint8), jnp.asarray(LABELS, jnp.int8)
    value, *others = jax.jit(lambda *pair: [loss(*pair, y) for y in (Y, *kinds)])(s, t)
    np.testing.assert_allclose(others, [value] * 3, rtol=1e-6)


def test_more_classes_than_the_labels_can_count():
    loss = jax.jit(losses.cross_entropy)
    s = np.where(np.arange(300) == 299, np.float32(9), np.zeros((2, 1), np.float32))
    for labels in (np.array([3, 255], np.uint8), np.array([3, -1], np.int8)):
        expected = loss(s, labels.astype(np.int32))
        np.testing.assert_allclose(loss(s, labels), expected)


SOFT = {
    "cross_entropy": lambda y, s, w: losses.cross_entropy(s, y, sample_weights=w),
    "nd": lambda y, s, w: losses.nd(
        s, s[:, ::-1], y, jnp.cos(jnp.arange(100.0).reshape(10, 10)), sample_weights=w
    ),
}


@pytest.mark.parametrize("name", SOFT)
def test_soft_is_every_example_once_for_each_label(name, x64):
    """What the error of the others advises is what these do."""
    loss, (s, _) = jax.jit(SOFT[name]), logits()
    share = np.array([0.25, 1.0, 0.5, 0.9])
    twice = loss(
        np.concatenate([Y, OTHER]),
        np.concatenate([s, s]),
        np.concatenate([share, 1 - share]),
    )
    np.testing.assert_allclose(loss(mixed(share), s, None), twice, rtol=1e-12)


def test_class_means_count_in_part(x64):
    features, share = vectors()[0], np.array([0.25, 1.0, 0.5, 0.9])
    weights = np.array([1.0, 2.0, 0.0, 1.0])
    class_means = jax.jit(losses.class_means, static_argnames="num_classes")
    means = class_means(features, mixed(share), num_classes=10, sample_weights=weights)
    twice = class_means(
        np.concatenate([features, features]),
        np.concatenate([Y, OTHER]),
        num_classes=10,
        sample_weights=np.concatenate([weights * share, weights * (1 - share)]),
    )
    np.testing.assert_allclose(means, twice, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("loss", [losses.dkd, losses.deepkd, losses.tpkd])
def test_losses_of_one_class_say_what_to_do(loss, untyped):
    s, t = logits(np.float32)
    with pytest.raises(ValueError, match="with their shares as sample_weights"):
        jax.eval_shape(loss, s, t, mixed(np.full(4, 0.5, np.float32)))


def test_smoothing_of_one_hot_labels(x64):
    s, loss = wave((4, 10), 0.3, 0.2, 2), jax.jit(losses.cross_entropy)
    smooth = 0.9 * np.eye(10)[Y] + 0.01
    every = [loss(s, np.full_like(Y, c)) for c in range(10)]
    expected = 0.9 * float(loss(s, Y)) + 0.1 * np.mean(every)
    np.testing.assert_allclose(loss(s, smooth), expected, rtol=1e-7)


def test_soft_labels_under_jit_and_masks():
    s, _ = logits(np.float32)
    masked = functools.partial(
        losses.cross_entropy, sample_weights=np.array([1.0, 1, 0, 1], np.float32)
    )
    soft = mixed(np.full(4, 0.5, np.float32))
    third = np.arange(4)[:, None] == 2
    spoilt = [np.where(third, np.float32(np.nan), x) for x in (s, soft)]
    np.testing.assert_allclose(jax.jit(masked)(*spoilt), masked(s, soft), rtol=1e-6)
