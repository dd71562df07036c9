"""Sorted probabilities of two vocabularies."""

import jax
import numpy as np
import pytest

from kdopt import losses
from tests.losses._inputs import token_logits


def test_words_may_be_in_any_order(x64):
    (s, t), loss = map(np.asarray, token_logits()), jax.jit(losses.universal_logit)
    np.testing.assert_allclose(loss(s[:, ::-1], t), loss(s, t), rtol=1e-12)
    assert loss(s, s[:, ::-1]) < 1e-15


def test_impossible_words_are_padding(x64):
    (s, t), loss = token_logits(), jax.jit(losses.universal_logit)
    wide = np.pad(t, ((0, 0), (0, 5)), constant_values=-np.inf)
    np.testing.assert_allclose(loss(s, wide), loss(s, t), rtol=1e-12)


def test_positions_must_match():
    s, t = token_logits(np.float32, classes=13)
    with pytest.raises(ValueError, match="the same number of examples"):
        losses.universal_logit(s, t[:3])
