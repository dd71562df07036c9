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

Y = jnp.asarray(LABELS)
OTHER = jnp.array([2, 5, 7, 9])


@pytest.fixture
def untyped():
    """Users run without the type checks of the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def mixed(share, first=Y, second=OTHER):
    """Labels of a mixture, ``[b, c]``."""
    one, two = (jax.nn.one_hot(y, 10, dtype=share.dtype) for y in (first, second))
    return share[:, None] * one + (1 - share[:, None]) * two


def test_kinds():
    assert not are_soft(Y, 10)
    assert are_soft(jnp.ones((4, 10)), 10)
    rows = jnp.eye(10) * 3
    np.testing.assert_array_equal(label_average(Y, rows), rows[Y])
    np.testing.assert_allclose(
        label_average(jax.nn.one_hot(Y, 10), rows), rows[Y], rtol=1e-6
    )
    assert target_mask(Y, 10).sum() == 4


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
    loss, (s, t) = jax.jit(jax.value_and_grad(LABELLED[name])), logits(np.float32)
    rows = np.array([0, 1, 3])
    value, slope = loss(s[rows], t[rows], Y[rows])
    for label in (-1, 10, -100, 255, -(2**31)):
        # What belongs to no class may be anything, as where nothing is labelled.
        got, grad = loss(s.at[2].set(jnp.nan), t, Y.at[2].set(label))
        np.testing.assert_allclose(got, value, rtol=1e-6)
        np.testing.assert_allclose(grad[rows], slope, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(grad[2], 0)


@pytest.mark.parametrize("name", LABELLED)
def test_labels_of_any_kind(name):
    loss, (s, t) = LABELLED[name], logits(np.float32)
    value = loss(s, t, Y)
    for labels in (LABELS.tolist(), LABELS.astype(np.uint8), Y.astype(jnp.int8)):
        np.testing.assert_allclose(loss(s, t, labels), value, rtol=1e-6)


def test_more_classes_than_the_labels_can_count():
    s = jnp.zeros((2, 300)).at[:, 299].set(9.0)
    for labels in (np.array([3, 255], np.uint8), np.array([3, -1], np.int8)):
        expected = losses.cross_entropy(s, labels.astype(np.int32))
        np.testing.assert_allclose(losses.cross_entropy(s, labels), expected)


SOFT = {
    "cross_entropy": lambda y, s, w: losses.cross_entropy(s, y, sample_weights=w),
    "nd": lambda y, s, w: losses.nd(
        s, s[:, ::-1], y, jnp.cos(jnp.arange(100.0).reshape(10, 10)), sample_weights=w
    ),
}


@pytest.mark.parametrize("name", SOFT)
def test_soft_is_every_example_once_for_each_label(name, x64):
    """What the error of the others advises is what these do."""
    loss, (s, _) = SOFT[name], logits()
    share = jnp.array([0.25, 1.0, 0.5, 0.9])
    twice = loss(
        jnp.concatenate([Y, OTHER]),
        jnp.concatenate([s, s]),
        jnp.concatenate([share, 1 - share]),
    )
    np.testing.assert_allclose(loss(mixed(share), s, None), twice, rtol=1e-12)


def test_class_means_count_in_part(x64):
    features, share = vectors()[0], jnp.array([0.25, 1.0, 0.5, 0.9])
    weights = jnp.array([1.0, 2.0, 0.0, 1.0])
    means = losses.class_means(
        features, mixed(share), num_classes=10, sample_weights=weights
    )
    twice = losses.class_means(
        jnp.concatenate([features, features]),
        jnp.concatenate([Y, OTHER]),
        num_classes=10,
        sample_weights=jnp.concatenate([weights * share, weights * (1 - share)]),
    )
    np.testing.assert_allclose(means, twice, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("loss", [losses.dkd, losses.deepkd, losses.tpkd])
def test_losses_of_one_class_say_what_to_do(loss, untyped):
    s, t = logits(np.float32)
    with pytest.raises(ValueError, match="with their shares as sample_weights"):
        jax.eval_shape(loss, s, t, mixed(jnp.full(4, 0.5)))


def test_smoothing_of_one_hot_labels(x64):
    s = wave((4, 10), 0.3, 0.2, 2)
    smooth = 0.9 * jax.nn.one_hot(Y, 10) + 0.01
    every = [losses.cross_entropy(s, jnp.full(4, c)) for c in range(10)]
    expected = 0.9 * losses.cross_entropy(s, Y) + 0.1 * np.mean(every)
    np.testing.assert_allclose(losses.cross_entropy(s, smooth), expected, rtol=1e-7)


def test_soft_labels_under_jit_and_masks():
    s, _ = logits(np.float32)
    masked = functools.partial(
        losses.cross_entropy, sample_weights=jnp.array([1.0, 1, 0, 1])
    )
    soft = mixed(jnp.full(4, 0.5))
    np.testing.assert_allclose(
        jax.jit(masked)(s.at[2].set(jnp.nan), soft.at[2].set(jnp.nan)),
        masked(s, soft),
        rtol=1e-6,
    )
