"""SoftAdapt by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import scalarizers


@pytest.mark.parametrize("variant", ["plain", "normalized", "loss_weighted"])
def test_softadapt_by_hand(variant):
    values, previous = np.array([2.0, 1.0]), np.array([2.5, 3.0])
    change = values - previous
    if variant == "normalized":
        change = change / np.abs(change).sum()
    raw = np.exp(0.1 * change) * (values if variant == "loss_weighted" else 1)
    got = scalarizers.softadapt_weights(
        jnp.asarray(values, jnp.float32),
        jnp.asarray(previous, jnp.float32),
        variant=variant,
    )
    np.testing.assert_allclose(got, raw / raw.sum(), rtol=1e-6)
