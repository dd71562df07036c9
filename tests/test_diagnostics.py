"""What is logged: definitions on random matrices and the keys of the summary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import diagnostics
from tests import _samplers


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
    """A step of 1e-6 on quadratics lowers each loss by 1e-6 of its entry."""
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


@pytest.mark.parametrize(
    ("weights", "values", "kinds"),
    [
        (None, None, {"norm", "cosine", "conflict", "dominance"}),
        (None, jnp.ones(2), {"norm", "cosine", "conflict", "dominance", "loss"}),
        (
            jnp.ones(2),
            None,
            {"norm", "cosine", "conflict", "dominance", "weight", "decrease"},
        ),
    ],
)
def test_summary_tells_what_it_can(weights, values, kinds):
    out = diagnostics.summary(jnp.eye(2), weights, values)
    assert {key.split("/")[0] for key in out} == kinds


def test_wrong_number_of_names():
    with pytest.raises(ValueError, match="Expected 3 names, one per loss, got 2"):
        diagnostics.summary(jnp.eye(3))
