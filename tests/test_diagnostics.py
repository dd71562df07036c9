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

cosines = jax.jit(diagnostics.cosines)
alignments = jax.jit(diagnostics.alignments)
decreases = jax.jit(diagnostics.decreases)
stationarity = jax.jit(diagnostics.stationarity)


def test_cosines_against_numpy(x64):
    rows = _samplers.generic(0, 3)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    got = cosines(rows @ rows.T)
    np.testing.assert_allclose(got, units @ units.T, rtol=1e-12)


@pytest.mark.parametrize("kind", _samplers.KINDS)
def test_cosines_stay_in_range(kind):
    rows = np.float32(_samplers.KINDS[kind](0, 3))
    got = cosines(rows @ rows.T)
    assert np.all(np.abs(got) <= 1)


def test_cosine_of_a_zero_gradient_is_zero():
    got = cosines(np.float32([[0, 0], [0, 4]]))
    np.testing.assert_allclose(got, [[0, 0], [0, 1]])


def test_conflicts_are_the_negative_products():
    gram = np.float32([[1, 0, -1], [0, 1, 2], [-1, 2, 9]])
    expected = [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    np.testing.assert_allclose(diagnostics.conflicts(jnp.asarray(gram)), expected)


def test_decreases_are_first_order(x64):
    """A step of 1e-6 on quadratics lowers each loss by 1e-6 times its entry."""
    targets = _samplers.generic(0, 2)
    weights, x = np.array([0.3, 0.7]), np.zeros(6)

    def losses(x):
        return 0.5 * np.sum((x - targets) ** 2, axis=1)

    rows = x - targets
    falls = (losses(x) - losses(x - 1e-6 * (weights @ rows))) / 1e-6
    got = decreases(rows @ rows.T, weights)
    np.testing.assert_allclose(got, falls, rtol=1e-5)


def test_summary_of_three_losses():
    rows = np.float32(_samplers.generic(0, 3))
    gram, weights = rows @ rows.T, np.float32([0.2, 0.3, 0.5])
    values = np.float32([1, 2, 4])
    names = ("task", "logit", "feature")
    out = jax.jit(lambda *a: diagnostics.summary(*a, names=names))(
        gram, weights, values
    )
    assert all(x.shape == () for x in out.values())
    update = weights @ rows
    expected = {
        "norm/feature": np.linalg.norm(rows[2]),
        "dominance/logit": np.linalg.norm(rows[1]) / np.linalg.norm(rows[0]),
        "weight/feature": 0.5,
        "loss/feature": 4.0,
        "decrease/logit": rows[1] @ update,
        "relative_decrease/feature": rows[2] @ update / 4,
        "norm/update": np.linalg.norm(update),
        "decrease/total": update @ update,
    }
    for key, value in expected.items():
        np.testing.assert_allclose(out[key], value, rtol=1e-5, err_msg=key)


GRAM_KINDS = {"norm", "cosine", "conflict", "dominance", "stationarity", "lambda"}


@pytest.mark.parametrize(
    ("weights", "values", "more"),
    [
        (None, None, set()),
        (None, np.ones(2), {"loss"}),
        (np.ones(2), None, {"weight", "decrease", "alignment"}),
    ],
)
def test_summary_tells_what_it_can(weights, values, more):
    out = jax.eval_shape(diagnostics.summary, np.eye(2), weights, values)
    assert {key.split("/")[0] for key in out} == GRAM_KINDS | more


def test_lambda_is_that_of_the_parabola():
    """Both losses fall equally at the vertex; neither rises between low and high."""
    gram = np.float32([[38, -22], [-22, 18]])
    out = jax.jit(diagnostics.summary)(gram, np.float32([1, 3]))
    assert out["lambda/used"] == 0.75

    def falls(name):
        share = np.asarray(out[f"lambda/{name}"])
        return decreases(gram, np.stack([1 - share, share]))

    np.testing.assert_allclose(*falls("vertex"), rtol=1e-5)
    np.testing.assert_allclose(falls("low")[1], 0, atol=1e-5)
    np.testing.assert_allclose(falls("high")[0], 0, atol=1e-5)


def test_three_losses_have_no_lambda():
    names = ("task", "logit", "feature")
    summary = functools.partial(diagnostics.summary, names=names)
    out = jax.eval_shape(summary, np.eye(3), np.ones(3))
    assert not [key for key in out if key.startswith("lambda")]


@pytest.mark.parametrize("kind", _samplers.KINDS)
def test_alignments_against_the_gradients_themselves(kind, x64):
    rows = _samplers.KINDS[kind](0, 3)
    weights = np.array([0.2, 0.3, 0.5])
    update = weights @ rows
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(update)
    expected = np.divide(rows @ update, lengths, where=lengths > 1e-9, out=np.zeros(3))
    got = alignments(rows @ rows.T, weights)
    if lengths.max() > 1e-9:
        np.testing.assert_allclose(got, expected, atol=1e-6)
    assert np.all(np.abs(got) <= 1)


def test_stationarity_is_the_distance_of_the_segment_from_zero(x64):
    rows = _samplers.generic(3, 2)
    points = np.linspace(0, 1, 10_001)[:, None]
    segment = points * rows[0] + (1 - points) * rows[1]
    nearest = np.linalg.norm(segment, axis=1).min()
    longest = np.linalg.norm(rows, axis=1).max()
    got = stationarity(rows @ rows.T)
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
    rows = np.float32(rows)
    np.testing.assert_allclose(stationarity(rows @ rows.T), expected, atol=1e-3)


def test_buffers_of_dot_against_the_buffers_themselves():
    rng = np.random.default_rng(0)
    params = {"w": jnp.zeros((3, 4)), "b": jnp.zeros(4)}
    tx = kdopt.dot()
    state, step = tx.init(params), jax.jit(tx.update)
    for _ in range(3):
        grads = tuple(
            jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape)), params)
            for _ in range(2)
        )
        update, state = step(grads, state)
    out = jax.jit(diagnostics.buffers)(optax.tree.get(state, "traces"))

    def flat(tree):
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])

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
    out = jax.eval_shape(diagnostics.summary, np.eye(3), np.ones(3))
    assert {"norm/task", "weight/distill_1", "cosine/distill_2"} <= set(out)


def test_what_an_absent_loss_leaves_undefined():
    gram, one = np.diag(np.float32([4, 0, 9])), np.ones(3, np.float32)
    summary = functools.partial(diagnostics.summary, present=[1, 0, 1])
    out = jax.jit(summary)(gram, one, one)
    defined = {key for key, x in out.items() if np.isfinite(x)}
    assert {"norm/task", "cosine/distill_2", "norm/update"} <= defined
    gone = {"norm/distill_1", "conflict/distill_1", "loss/distill_1", "stationarity"}
    assert not gone & defined
    summary = functools.partial(diagnostics.summary, present=[False, True])
    out = jax.jit(summary)(gram[:2, :2], one[:2])
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
