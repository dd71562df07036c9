"""Theorems as functions ``theorem(run, grads, values)``, for methods that claim them.

``run(grads, values)`` takes the first step of a method: it maps gradients ``[k, n]``
and values ``[k]`` to the update ``[n]`` and the weights ``[k]`` (None if it keeps
none), all in float64. ``CLAIMS`` says on which kinds of input a theorem holds.
"""

from collections.abc import Callable

import numpy as np

from tests import _samplers

Run = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

TOLERANCE = 1e-9


def _scale(grads: np.ndarray) -> float:
    return max(float(np.max(np.sum(grads**2, axis=1))), np.finfo(float).tiny)


def finite(run: Run, grads: np.ndarray, values: np.ndarray) -> None:
    """Update and weights are finite."""
    for array in run(grads, values):
        if array is not None:
            assert np.all(np.isfinite(array)), array


def combination(run: Run, grads: np.ndarray, values: np.ndarray) -> None:
    """The update is the combination with the weights in the state."""
    update, weights = run(grads, values)
    scale = np.max(np.abs(weights)) * np.sqrt(_scale(grads))
    np.testing.assert_allclose(update, weights @ grads, atol=TOLERANCE * scale, rtol=0)


def on_simplex(run: Run, grads: np.ndarray, values: np.ndarray) -> None:
    """Weights are not negative and sum to one."""
    _, weights = run(grads, values)
    assert np.all(weights >= 0), weights
    np.testing.assert_allclose(np.sum(weights), 1, rtol=TOLERANCE)


def non_conflicting(run: Run, grads: np.ndarray, values: np.ndarray) -> None:
    """No loss rises, to first order: ``<g_i, u> >= 0``."""
    update, weights = run(grads, values)
    size = 1 if weights is None else max(1.0, np.max(np.abs(weights)))
    floor = -TOLERANCE * size * _scale(grads)
    assert np.all(grads @ update >= floor), grads @ update


def permutation_equivariant(run: Run, grads: np.ndarray, values: np.ndarray) -> None:
    """Reordered losses give reordered weights and the same update."""
    update, weights = run(grads, values)
    for shift in range(1, len(grads)):
        order = np.roll(np.arange(len(grads)), shift)
        moved, rolled = run(grads[order], values[order])
        np.testing.assert_allclose(moved, update, rtol=1e-7, atol=TOLERANCE)
        np.testing.assert_allclose(rolled, weights[order], rtol=1e-7, atol=TOLERANCE)


def scale_invariant_weights(run: Run, grads: np.ndarray, values: np.ndarray) -> None:
    """A factor common to all gradients does not change the weights."""
    _, weights = run(grads, values)
    for factor in (1e-6, 3.0, 1e6):
        np.testing.assert_allclose(run(factor * grads, values)[1], weights, rtol=1e-8)


def linear_under_scaling(run: Run, grads: np.ndarray, values: np.ndarray) -> None:
    """The update is linear in positive factors, one per gradient."""
    c, d = _samplers.values(11, len(grads)), _samplers.values(12, len(grads))

    def scaled(factors: np.ndarray) -> np.ndarray:
        return run(factors[:, None] * grads, values)[0]

    expected = 0.3 * scaled(c) + 2 * scaled(d)
    np.testing.assert_allclose(scaled(0.3 * c + 2 * d), expected, rtol=1e-9, atol=1e-12)


def loss_scale_invariant(run: Run, grads: np.ndarray, values: np.ndarray) -> None:
    """Constant factors of the losses do not change the update."""
    update, _ = run(grads, values)
    factors = np.geomspace(0.01, 100, len(grads))
    again, _ = run(factors[:, None] * grads, factors * values)
    np.testing.assert_allclose(again, update, rtol=1e-7, atol=TOLERANCE)


def min_norm_kkt(run: Run, grads: np.ndarray, values: np.ndarray) -> None:
    """Karush-Kuhn-Tucker conditions of the point of least norm on the simplex.

    ``<g_i, u> >= |u|^2``, with equality where the weight is positive. The problem is
    convex, so these are sufficient.
    """
    on_simplex(run, grads, values)
    update, weights = run(grads, values)
    excess = (grads @ update - update @ update) / _scale(grads)
    assert np.all(excess >= -TOLERANCE), excess
    np.testing.assert_allclose(weights * excess, 0, atol=TOLERANCE)


def equal_decrease(run: Run, grads: np.ndarray, values: np.ndarray) -> None:
    """All losses fall at the same rate, ``<g_i, u>``."""
    falls = grads @ run(grads, values)[0]
    np.testing.assert_allclose(falls, falls[0], rtol=1e-8)
    assert falls[0] > 0


def equal_relative_decrease(run: Run, grads: np.ndarray, values: np.ndarray) -> None:
    """All losses fall by the same fraction, ``<g_i, u> / L_i``."""
    falls = grads @ run(grads, values)[0] / values
    np.testing.assert_allclose(falls, falls[0], rtol=1e-8)
    assert falls[0] > 0


def bisector(run: Run, grads: np.ndarray, values: np.ndarray) -> None:
    """Both weighted gradients have the same length."""
    _, weights = run(grads, values)
    lengths = weights * np.linalg.norm(grads, axis=1)
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-9)


def zero_gradient_is_left_out(run: Run, grads: np.ndarray, values: np.ndarray) -> None:
    """A zero gradient gets no weight; with losses of 1 the others sum to 1."""
    _, weights = run(grads, np.ones_like(values))
    on = np.any(grads != 0, axis=1)
    if np.any(on):
        assert np.all(weights[~on] == 0), weights
        np.testing.assert_allclose(np.sum(weights), 1, rtol=TOLERANCE)


def zero_if_stationary(run: Run, grads: np.ndarray, values: np.ndarray) -> None:
    """No step where a convex combination of the gradients is zero."""
    update, weights = run(grads, values)
    size = max(1.0, np.max(np.abs(weights))) * np.sqrt(_scale(grads))
    np.testing.assert_allclose(update / size, 0, atol=1e-7)


def zero_if_strongly_stationary(
    run: Run, grads: np.ndarray, values: np.ndarray
) -> None:
    """No step where a positive combination of the gradients is zero."""
    zero_if_stationary(run, grads, values)


def moves_if_weakly_stationary(run: Run, grads: np.ndarray, values: np.ndarray) -> None:
    """The step is nonzero unless a *positive* combination of the gradients is zero."""
    assert np.linalg.norm(run(grads, values)[0]) > 1e-3


Theorem = Callable[[Run, np.ndarray, np.ndarray], None]

REGULAR = ("generic", "conflicting")
"""Kinds in general position, where a minimiser is unique."""

CLAIMS: dict[str, tuple[Theorem, tuple[str, ...]]] = {
    theorem.__name__: (theorem, kinds)
    for theorem, kinds in (
        (finite, tuple(_samplers.KINDS)),
        (combination, tuple(_samplers.KINDS)),
        (on_simplex, tuple(_samplers.KINDS)),
        (non_conflicting, tuple(_samplers.KINDS)),
        (permutation_equivariant, REGULAR),
        (scale_invariant_weights, (*REGULAR, "zero_task", "zero_distill")),
        (linear_under_scaling, REGULAR),
        (loss_scale_invariant, REGULAR),
        (min_norm_kkt, (*REGULAR, "parallel", "equal", "opposite", "rank_deficient")),
        (equal_decrease, ("conflicting",)),
        (equal_relative_decrease, ("conflicting",)),
        (bisector, (*REGULAR, "parallel", "equal", "opposite")),
        (zero_gradient_is_left_out, ("zero_task", "zero_distill")),
        (zero_if_stationary, ("opposite", "strongly_stationary", "weakly_stationary")),
        (zero_if_strongly_stationary, ("opposite", "strongly_stationary")),
        (moves_if_weakly_stationary, ("weakly_stationary",)),
    )
}

LEAST_K = {
    "zero_if_stationary": 2,
    "zero_if_strongly_stationary": 2,
    "moves_if_weakly_stationary": 3,
}
"""Smallest K for which such a matrix other than zero exists."""
