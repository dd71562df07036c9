"""ReLoBRaLo: golden values, the look back, and what is drawn."""

import jax
import numpy as np

import kdopt
from tests.scalarizers.test_memory import VALUES, run

# A program of our own in float64: alpha 0.9, T 1, rho 1.
GOLDEN = [
    [1.0, 1.0, 1.0],
    [1.00808898457223, 0.9724542131143992, 1.0194568023133708],
    [1.0060892640466037, 0.9707786195736823, 1.023132116379714],
    [1.0281396864733703, 0.9758135140674009, 0.9960467994592288],
]


def test_golden_values(x64):
    tx = kdopt.relobralo(num_losses=3, alpha=0.9, rho=1.0)
    weights, _ = run(tx, np.array(VALUES))
    np.testing.assert_allclose(weights, GOLDEN, rtol=1e-5)


def test_the_look_back_compares_with_the_first_step():
    tx = kdopt.relobralo(num_losses=3, alpha=1.0, rho=0.0)
    weights, _ = run(tx, np.float32(VALUES))
    raw = np.exp(np.array(VALUES[-1]) / np.array(VALUES[0]))
    np.testing.assert_allclose(weights[-1], 3 * raw / raw.sum(), rtol=1e-5)


def test_drawn_looks_back_are_as_frequent_as_asked():
    """With alpha 1 and no look back the weights stay."""
    rng = np.random.default_rng(0)
    tx = kdopt.relobralo(num_losses=2, alpha=1.0, rho=0.8, key=jax.random.key(0))
    weights, _ = run(tx, np.float32(rng.uniform(1, 2, size=(1000, 2))))
    moved = np.any(np.diff(weights, axis=0) != 0, axis=1)
    assert 0.16 < np.mean(moved) < 0.24
