"""A batch in parts gives the same as a whole batch."""

import chex
import numpy as np
import pytest

from _students import students, train

pytestmark = pytest.mark.usefixtures("standard")


@pytest.mark.parametrize(
    # The weights of the third follow from the values of the whole batch.
    "method",
    [
        pytest.param("kd", marks=pytest.mark.slow),
        "dto_kd",
        "dto_kd_amortized",
        "dto_kd_shared",
        pytest.param("dot", marks=pytest.mark.slow),
    ],
)
def test_parts_of_a_batch_train_as_the_whole(method):
    """The last batch has two examples: two of four parts are all padding."""
    whole, expected = train(students(labels=50), method, steps=4)
    state, found = train(students(labels=50, accumulate=4), method, steps=4)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            # A decrease relative to a tiny divergence has a large relative error.
            rtol = 1e-3 if "relative_decrease" in name else 2e-5
            np.testing.assert_allclose(
                ours[name], theirs[name], rtol, 2e-6, err_msg=name
            )
    chex.assert_trees_all_close(state.params, whole.params, rtol=1e-4, atol=1e-6)


def test_every_part_moves_the_memory_of_a_loss():
    """The memory of `crd` holds the updates of every part."""
    before = students(loss="crd").state(students(loss="crd").plan("kd"), 0)
    state, _ = train(students(loss="crd", accumulate=2), "kd", steps=1)
    old = before.rest["adapter"]["memory"].get_value().student_memory
    new = state.rest["adapter"]["memory"].get_value().student_memory
    assert np.any(np.asarray(old) != np.asarray(new), axis=-1).sum() == 16
