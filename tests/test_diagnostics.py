"""What is logged: definitions on random matrices and the keys of the summary."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from kdopt import diagnostics
from tests import _samplers
from tests._compiler import OPTIMISED


def test_cosines_against_numpy(x64):
    rows = _samplers.generic(0, 3)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    got = diagnostics.cosines(jnp.asarray(rows @ rows.T))
    np.testing.assert_allclose(got, units @ units.T, rtol=1e-12)


@pytest.mark.parametrize("kind", _samplers.KINDS)
def test_cosines_stay_in_range(kind):
    rows = jnp.asarray(_samplers.KINDS[kind](0, 3), jnp.float32)
    got = diagnostics.cosines(rows @ rows.T)
    assert jnp.all(jnp.abs(got) <= 1)


def test_cosine_of_a_zero_gradient_is_zero():
    got = diagnostics.cosines(jnp.array([[0.0, 0.0], [0.0, 4.0]]))
    np.testing.assert_allclose(got, [[0, 0], [0, 1]])


def test_conflicts_are_the_negative_products():
    gram = jnp.array([[1.0, 0.0, -1.0], [0.0, 1.0, 2.0], [-1.0, 2.0, 9.0]])
    expected = [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    np.testing.assert_allclose(diagnostics.conflicts(gram), expected)


def test_decreases_are_first_order(x64):
    """A step of 1e-6 on quadratics lowers each loss by 1e-6 times its entry."""
    targets = jnp.asarray(_samplers.generic(0, 2))
    weights, x = jnp.array([0.3, 0.7]), jnp.zeros(6)

    def losses(x):
        return 0.5 * jnp.sum((x[None, :] - targets) ** 2, axis=1)

    rows = jax.jacobian(losses)(x)
    falls = (losses(x) - losses(x - 1e-6 * (weights @ rows))) / 1e-6
    got = diagnostics.decreases(rows @ rows.T, weights)
    np.testing.assert_allclose(got, falls, rtol=1e-5)


def test_summary_of_three_losses():
    rows = jnp.asarray(_samplers.generic(0, 3), jnp.float32)
    gram, weights = rows @ rows.T, jnp.array([0.2, 0.3, 0.5])
    values = jnp.array([1.0, 2.0, 4.0])
    names = ("task", "logit", "feature")
    out = jax.jit(lambda *a: diagnostics.summary(*a, names=names))(
        gram, weights, values
    )
    assert all(x.shape == () for x in out.values())
    update = weights @ rows
    expected = {
        "norm/feature": jnp.linalg.norm(rows[2]),
        "dominance/logit": jnp.linalg.norm(rows[1]) / jnp.linalg.norm(rows[0]),
        "weight/feature": 0.5,
        "loss/feature": 4.0,
        "decrease/logit": rows[1] @ update,
        "relative_decrease/feature": rows[2] @ update / 4,
        "norm/update": jnp.linalg.norm(update),
        "decrease/total": update @ update,
    }
    for key, value in expected.items():
        np.testing.assert_allclose(out[key], value, rtol=1e-5, err_msg=key)


GRAM_KINDS = {"norm", "cosine", "conflict", "dominance", "stationarity", "lambda"}


@pytest.mark.parametrize(
    ("weights", "values", "more"),
    [
        (None, None, set()),
        (None, jnp.ones(2), {"loss"}),
        (jnp.ones(2), None, {"weight", "decrease", "alignment"}),
    ],
)
def test_summary_tells_what_it_can(weights, values, more):
    out = diagnostics.summary(jnp.eye(2), weights, values)
    assert {key.split("/")[0] for key in out} == GRAM_KINDS | more


def test_lambda_is_that_of_the_parabola():
    """Both losses fall equally at the vertex; neither rises between low and high."""
    gram = jnp.array([[38.0, -22.0], [-22.0, 18.0]])
    out = diagnostics.summary(gram, jnp.array([1.0, 3.0]))
    assert out["lambda/used"] == 0.75

    def falls(name):
        share = out[f"lambda/{name}"]
        return diagnostics.decreases(gram, jnp.stack([1 - share, share]))

    np.testing.assert_allclose(*falls("vertex"), rtol=1e-5)
    np.testing.assert_allclose(falls("low")[1], 0, atol=1e-5)
    np.testing.assert_allclose(falls("high")[0], 0, atol=1e-5)


def test_three_losses_have_no_lambda():
    names = ("task", "logit", "feature")
    out = diagnostics.summary(jnp.eye(3), jnp.ones(3), names=names)
    assert not [key for key in out if key.startswith("lambda")]


@pytest.mark.parametrize("kind", _samplers.KINDS)
def test_alignments_against_the_gradients_themselves(kind, x64):
    rows = _samplers.KINDS[kind](0, 3)
    weights = np.array([0.2, 0.3, 0.5])
    update = weights @ rows
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(update)
    expected = np.divide(rows @ update, lengths, where=lengths > 1e-9, out=np.zeros(3))
    got = diagnostics.alignments(jnp.asarray(rows @ rows.T), jnp.asarray(weights))
    if lengths.max() > 1e-9:
        np.testing.assert_allclose(got, expected, atol=1e-6)
    assert jnp.all(jnp.abs(got) <= 1)


def test_stationarity_is_the_distance_of_the_segment_from_zero(x64):
    rows = _samplers.generic(3, 2)
    points = np.linspace(0, 1, 10_001)[:, None]
    segment = points * rows[0] + (1 - points) * rows[1]
    nearest = np.linalg.norm(segment, axis=1).min()
    longest = np.linalg.norm(rows, axis=1).max()
    got = diagnostics.stationarity(jnp.asarray(rows @ rows.T))
    np.testing.assert_allclose(got, nearest / longest, rtol=1e-6)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1.0, 0.0], [-2.0, 0.0]], 0),  # opposite
        ([[1.0, 0.0], [0.0, 0.0]], 0),  # one loss is at its minimum
        ([[0.0, 0.0], [0.0, 0.0]], 0),
        ([[1.0, 0.0], [1.0, 0.0]], 1),  # equal
        ([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]], 0),  # three that cancel
    ],
)
def test_stationarity_at_its_ends(rows, expected):
    rows = jnp.array(rows)
    np.testing.assert_allclose(
        diagnostics.stationarity(rows @ rows.T), expected, atol=1e-3
    )


def test_buffers_of_dot_against_the_buffers_themselves():
    params = {"w": jnp.zeros((3, 4)), "b": jnp.zeros(4)}
    tx = kdopt.dot()
    state = tx.init(params)
    for i in range(3):
        keys = jax.random.split(jax.random.key(i), 2)
        grads = tuple(optax.tree.random_like(key, params) for key in keys)
        update, state = tx.update(grads, state)
    out = diagnostics.buffers(optax.tree.get(state, "traces"))

    def flat(tree):
        return np.concatenate([x.ravel() for x in jax.tree.leaves(tree)])

    def cosine(x, y):
        return x @ y / np.linalg.norm(x) / np.linalg.norm(y)

    task, distill = map(flat, state.traces)
    expected = {
        "buffer/norm/task": np.linalg.norm(task),
        "buffer/alignment/task": cosine(task, flat(update)),
        "buffer/alignment/distill": cosine(distill, flat(update)),
        "buffer/cosine/distill": cosine(task, distill),
    }
    for key, value in expected.items():
        np.testing.assert_allclose(out[key], value, rtol=1e-5, err_msg=key)


def test_wrong_number_of_names():
    with pytest.raises(ValueError, match="Expected 3 names, one per loss, got 2"):
        diagnostics.summary(jnp.eye(3), names=("task", "distill"))


def test_names_of_several_losses():
    out = diagnostics.summary(jnp.eye(3), jnp.ones(3))
    assert {"norm/task", "weight/distill_1", "cosine/distill_2"} <= set(out)


def test_what_an_absent_loss_leaves_undefined():
    gram = jnp.diag(jnp.array([4.0, 0.0, 9.0]))
    out = diagnostics.summary(gram, jnp.ones(3), jnp.ones(3), present=[1, 0, 1])
    defined = {key for key, x in out.items() if np.isfinite(x)}
    assert {"norm/task", "cosine/distill_2", "norm/update"} <= defined
    gone = {"norm/distill_1", "conflict/distill_1", "loss/distill_1", "stationarity"}
    assert not gone & defined
    out = diagnostics.summary(gram[:2, :2], jnp.ones(2), present=[False, True])
    assert np.isnan(out["dominance/distill"]) and np.isnan(out["lambda/vertex"])


def flops(fn, *args):
    return jax.jit(fn).lower(*args).compile(OPTIMISED).cost_analysis()["flops"]


@pytest.mark.usefixtures("standard")
def test_a_step_with_the_summary_has_no_pass_more_over_the_gradients():
    """The number of floating-point operations it adds does not depend on their size."""
    tx = optax.chain(kdopt.dto_kd(), optax.sgd(0.1, momentum=0.9))
    values = jax.ShapeDtypeStruct((2,), jnp.float32)

    def step(grads, state, params, values, *, log):
        updates, state = tx.update(grads, state, params, values=values)
        params = optax.apply_updates(params, updates)
        if not log:
            return params, state
        gram, weights = optax.tree.get(state, "gram"), kdopt.loss_weights(state)
        return params, state, diagnostics.summary(gram, weights, values)

    def added(size):
        params = jax.ShapeDtypeStruct((size,), jnp.float32)
        arguments = (params, params), jax.eval_shape(tx.init, params), params, values
        plain, logged = (
            flops(functools.partial(step, log=log), *arguments) for log in (False, True)
        )
        assert plain > 10 * size
        return logged - plain

    assert 0 < added(1_000) == added(100_000) < 400
