"""Auxiliary losses by cosines: the task falls at least as it does alone."""

import numpy as np

import kdopt
from tests.balancers._inputs import batched, grams, jacobians


def test_every_rule_helps_the_task(x64):
    matrices = jacobians(4, 5, count=100)
    square = np.sum(matrices[:, 0] ** 2, axis=1)
    for rule in ("weighted", "gated"):
        weights = batched(kdopt.grad_cosine_weights, grams(matrices), rule=rule)
        falls = np.einsum("cn,ck,ckn->c", matrices[:, 0], weights, matrices)
        assert np.all(falls >= square * (1 - 1e-12))
        norms = np.linalg.norm(matrices, axis=-1)
        cosines = np.einsum("ckn,cn->ck", matrices, matrices[:, 0]) / norms
        cosines /= norms[:, :1]
        expected = np.maximum(cosines, 0) if rule == "weighted" else cosines >= 0
        np.testing.assert_allclose(weights[:, 1:], expected[:, 1:], atol=1e-12)
        assert np.all(weights[:, 0] == 1)
