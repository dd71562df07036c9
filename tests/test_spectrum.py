"""Spectra and inverses of Gram matrices that may be singular."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import _spectrum
from tests import _samplers

positive_spectrum = jax.jit(_spectrum.positive_spectrum)
pseudo_inverse = jax.jit(_spectrum.pseudo_inverse)

RANKS = {
    "generic": lambda k: k,
    "conflicting": lambda k: k,
    "rank_deficient": lambda k: k - 1,
    "zero_task": lambda k: k - 1,
    "strongly_stationary": lambda k: k - 1,
    "equal": lambda k: 1,
    "all_zero": lambda k: 0,
}


@pytest.mark.parametrize("kind", RANKS)
@pytest.mark.parametrize("k", [2, 4])
def test_spectrum(x64, kind, k):
    for seed in range(3):
        rows = _samplers.KINDS[kind](seed, k)
        gram = rows @ rows.T
        values, vectors, counts = map(np.asarray, positive_spectrum(gram))
        assert np.sum(counts) == RANKS[kind](k)
        assert np.all(np.diff(values) >= 0)
        kept = (vectors * np.where(counts, values, 0)) @ vectors.T
        np.testing.assert_allclose(kept, gram, atol=1e-12)


@pytest.mark.parametrize("kind", RANKS)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_pseudo_inverse(x64, kind, k):
    """The four Penrose conditions, two of which are the symmetry of both products."""
    for seed in range(3):
        rows = _samplers.KINDS[kind](seed, k)
        gram = rows @ rows.T
        inverse = np.asarray(pseudo_inverse(gram))
        size = max(1, np.max(np.abs(inverse)))
        np.testing.assert_allclose(gram @ inverse @ gram, gram, atol=1e-9)
        np.testing.assert_allclose(inverse @ gram @ inverse, inverse, atol=1e-9 * size)
        np.testing.assert_allclose(gram @ inverse, (gram @ inverse).T, atol=1e-9)


def test_rounding_does_not_count_in_single_precision():
    row = jnp.asarray(_samplers.generic(0, 1)[0], jnp.float32)
    rows = jnp.stack([row, row / 3, row * 7])
    assert jnp.sum(positive_spectrum(rows @ rows.T)[2]) == 1
