"""Beginning and end of an answer, among the tokens of a text."""

import jax
import numpy as np
import pytest

from kdopt import losses
from tests.losses._inputs import token_logits

LENGTHS = np.array([11, 9, 6, 11])
MASK = np.arange(11)[None] < LENGTHS[:, None]


def both(x):
    """The same logits for beginning and end."""
    return np.stack([x, x], axis=-1)


def test_golden_values(x64):
    (s, t), loss = token_logits(), jax.jit(losses.span_kd)
    for fill in (0.0, np.nan, -np.inf):
        pair = [both(np.where(MASK, x, fill)) for x in (s, t)]
        for tau, expected in ((1.0, 2.25936207310697), (2.0, 3.24669673721096)):
            value = loss(*pair, token_mask=MASK, temperature=tau)
            np.testing.assert_allclose(value, expected, rtol=1e-10)
    # Squared errors of logits need no loss of their own.
    s, t = (np.where(MASK, x, -np.inf) for x in (s, t))
    value = jax.jit(losses.soft_distance, static_argnames="kind")(s, t, kind="mse")
    np.testing.assert_allclose(value, 8.86121137474943, rtol=1e-10)


def test_parts_are_those_of_tokens(x64):
    s, t = map(np.asarray, token_logits())
    pair, part = np.stack([s, t], axis=-1), jax.jit(losses.cross_entropy)
    positions = np.array([[3, 5], [2, 3], [9, 0], [-1, 11]])
    value = jax.jit(losses.span_cross_entropy)(pair, positions)
    start = float(part(s[:3], positions[:3, 0]))
    end = float(part(t[:3], positions[:3, 1]))
    np.testing.assert_allclose(value, (start + end) / 2, rtol=1e-12)
    # A position behind the text is left out of its own part alone.
    positions[2, 0] = 11
    value = jax.jit(losses.span_cross_entropy)(pair[:3], positions[:3])
    start = float(part(s[:2], positions[:2, 0]))
    np.testing.assert_allclose(value, (start + end) / 2, rtol=1e-12)


def test_a_text_without_tokens_is_left_out():
    s, t = (both(x) for x in token_logits(np.float32))
    mask = MASK & (np.arange(4) != 1)[:, None]
    value, slope = jax.jit(jax.value_and_grad(losses.span_kd))(s, t, token_mask=mask)
    rows = np.array([0, 2, 3])
    expected = jax.jit(losses.span_kd)(s[rows], t[rows], token_mask=mask[rows])
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.isfinite(slope).all() and not np.any(np.asarray(slope)[1])


def test_wrong_shapes_are_named():
    s, _ = token_logits(np.float32)
    x = both(s)
    for wrong, message in (
        (lambda: losses.span_kd(s, s), r"\[..., t, 2\]"),
        (lambda: losses.span_kd(x, x[:, :3]), "tokens|classes"),
        (lambda: losses.span_kd(x, x, token_mask=MASK.T), "token_mask must have"),
        (lambda: losses.span_cross_entropy(x, np.zeros(4, int)), "start and an end"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
