"""A loss whose gradient is exactly zero must not stop the others.

It is absent from the batch, or has converged. A method then does what it would do
without that loss, up to a positive factor; the table says where and why it does not.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from tests import _samplers
from tests._methods import BALANCERS, METHOD, jitted, transform

STEPS = 30
"""Enough steps for weights that move to a zero gradient to get there."""


def updates(name, rows, values):
    """Returns the updates of some steps on the same gradients, ``[STEPS, n]``."""
    k, params = len(rows), jnp.zeros(rows.shape[1])
    step, state = jitted(name, k), transform(name, k).init(params)
    found = []
    for _ in range(STEPS):
        update, state = step(tuple(rows), state, params, values)
        found.append(np.asarray(update))
    downhill = -1 if "learning_rate" in METHOD[name].kwargs(k) else 1
    return downhill * np.stack(found)


def direction(update):
    return update / np.linalg.norm(update, axis=-1, keepdims=True)


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("name", [m.name for m in BALANCERS if 2 in m.ks])
def test_one_of_two_goes_on(name, position):
    if METHOD[name].rests and position == 0:
        pytest.skip("rests: tested below")
    rows = np.float32(0.3 * _samplers.generic(0, 2))
    rows[position] = 0
    other = rows[1 - position]
    for absent in (1.0, 0.0):
        values = np.float32([2.0, 2.0])
        values[position] = absent
        found = updates(name, rows, values)
        assert np.all(found @ other > 0)
        if METHOD[name].weighted:
            np.testing.assert_allclose(
                direction(found), np.tile(direction(other), (STEPS, 1)), atol=1e-5
            )


@pytest.mark.parametrize("name", [m.name for m in BALANCERS if not m.zero])
def test_others_go_on_as_if_alone(name):
    fewer = max(2, METHOD[name].ks[0])
    if len(METHOD[name].ks) == 1:
        pytest.skip("for two losses only")
    rows = np.float32(0.3 * _samplers.conflicting(1, fewer))
    values = np.float32(_samplers.values(1, fewer))
    expected = direction(updates(name, rows, values))
    for position in range(fewer + 1):
        for absent in (1.0, 0.0):
            more = np.insert(rows, position, 0, axis=0)
            found = updates(name, more, np.insert(values, position, absent))
            np.testing.assert_allclose(direction(found), expected, atol=1e-4)


@pytest.mark.parametrize("name", [m.name for m in BALANCERS if m.zero])
def test_exceptions_have_a_reason_and_do_not_stop(name):
    k = max(METHOD[name].ks)
    rows = np.float32(_samplers.parallel(0, k))
    rows[k - 1] = 0
    found = updates(name, rows, np.ones(k, np.float32))
    assert METHOD[name].zero and np.all(found @ rows[0] > 0)


@pytest.mark.parametrize("name", [m.name for m in BALANCERS if m.rests])
def test_rests_where_the_task_does(name):
    k = max(METHOD[name].ks)
    rows = np.float32(_samplers.generic(0, k))
    rows[0] = 0
    values = np.ones(k, np.float32)
    assert not np.any(updates(name, rows, values))
    rows[0] = 1
    assert np.any(updates(name, rows, values))
