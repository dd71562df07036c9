"""Sorted probabilities of two vocabularies."""

import jax.numpy as jnp
import numpy as np
import pytest

from kdopt import losses
from tests.losses._inputs import token_logits


def test_words_may_be_in_any_order(x64):
    s, t = token_logits()
    np.testing.assert_allclose(
        losses.universal_logit(s[:, ::-1], t), losses.universal_logit(s, t), rtol=1e-12
    )
    assert losses.universal_logit(s, s[:, ::-1]) < 1e-15


def test_impossible_words_are_padding(x64):
    s, t = token_logits()
    wide = jnp.pad(t, ((0, 0), (0, 5)), constant_values=-jnp.inf)
    np.testing.assert_allclose(
        losses.universal_logit(s, wide), losses.universal_logit(s, t), rtol=1e-12
    )


def test_positions_must_match():
    s, t = token_logits(np.float32, classes=13)
    with pytest.raises(ValueError, match="the same number of examples"):
        losses.universal_logit(s, t[:3])
