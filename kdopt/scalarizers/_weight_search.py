"""Weights that a bank of probe heads finds while the network trains."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdopt._checks import check_range
from kdopt._dtypes import accumulator_dtype
from kdopt._linalg import dot
from kdopt._present import present_mask
from kdopt._transform import check_num_losses, check_state, count_unless
from kdopt._typing import PresentLike, Scalarizer, Weights

SHARES = (0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0)
"""Default candidates: shares of the second of two losses."""


class WeightSearchState(NamedTuple):
    """State of :func:`kdopt.weight_search`.

    Attributes:
        loss_weights: Weights for the next backward pass, ``[k]``.
        notfinite_count: Number of evaluations, int32, that were left out because no
            candidate's loss was finite.
    """

    loss_weights: Weights
    notfinite_count: jax.Array


def weight_search(
    candidates: Sequence[Any] | jax.Array | None = None,
    *,
    num_losses: int = 2,
    num_examples: int | float | jax.Array = 100,
    decay: float | jax.Array = 0.8,
) -> Scalarizer:
    r"""Weights the losses by the mean of candidates that a validation set supports.

    Each candidate :math:`c_j` is a set of fixed weights, with which its own head is
    trained on the (detached) features of the network. Its loss on :math:`n` validation
    examples, the mean negative log-likelihood :math:`\ell_j`, says how well it
    generalises:

    .. math::
        q_j \propto e^{-n \ell_j}, \qquad
        w \leftarrow \alpha w + (1 - \alpha) \sum_j q_j c_j

    So :math:`q` is the posterior of the candidates under equal priors. The weights
    follow it gradually, because a network in early training may not survive a sudden
    change of its loss. The heads are trained in the same backward pass and cost little:
    one run replaces one per candidate.

    Args:
        candidates: Weights ``[j, k]``, not negative. None: for two losses, nine shares
            of the second from 0 to 1; for more, each loss alone, each pair in equal
            parts, and all in equal parts.
        num_losses: K.
        num_examples: :math:`n`; lower values weight the candidates more evenly.
        decay: :math:`\alpha`, per evaluation, in [0, 1); 0 uses the last one only.

    Returns:
        A scalarizer: it passes the gradient through and learns from
        ``candidate_losses``, ``[j]``, in ``update``; leave them out on steps without an
        evaluation (one every ten steps or so is enough). The next backward pass
        takes ``kdopt.loss_weights(opt_state)``, the mean of all candidates before the
        first evaluation. The weights have the same sum as the candidates: 1 by default.

    Raises:
        ValueError: If the candidates are not K columns of finite, non-negative numbers,
            or another number is out of its range.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.weight_search([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
        >>> state = tx.init(jnp.zeros(2))
        >>> losses = jnp.array([0.40, 0.31, 0.30])  # of the heads, on 100 examples
        >>> _, state = tx.update(jnp.zeros(2), state, candidate_losses=losses)
        >>> print("{:.3f} {:.3f}".format(*kdopt.loss_weights(state)))
        0.427 0.573

    Notes:
        Over- and underconfident heads are best compared after calibration:
        :func:`kdopt.diagnostics.calibrated_cross_entropy`.
    """
    check_range("decay", decay, 0.0, 1.0, open_maximum=True)
    check_range("num_examples", num_examples, 0.0)
    k = check_num_losses(num_losses)
    table = np.asarray(
        _default_candidates(k) if candidates is None else candidates, np.float64
    )
    if table.ndim != 2 or table.shape[1] != k or not len(table):
        raise ValueError(
            f"candidates must be a matrix, one row of {k} weights per candidate, got "
            f"shape {table.shape}. For another number of losses pass num_losses=."
        )
    if not np.all(np.isfinite(table) & (table >= 0)):
        raise ValueError(f"candidates must be finite and not negative, got {table}.")
    j = len(table)

    def init_fn(params: optax.Params) -> WeightSearchState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        return WeightSearchState(
            loss_weights=jnp.asarray(table.mean(0), dtype),
            notfinite_count=jnp.zeros((), jnp.int32),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        candidate_losses: Any = None,
        present: PresentLike = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, WeightSearchState]:
        del params, extra_args
        check_state(state.loss_weights, k)
        if candidate_losses is None:
            return updates, state
        dtype = state.loss_weights.dtype
        found = jnp.asarray(candidate_losses, dtype)
        if found.shape != (j,):
            raise ValueError(
                f"Expected {j} candidate losses, one per candidate, got an array of "
                f"shape {found.shape}."
            )
        # A head that diverged is out; the others decide.
        scores = jnp.where(jnp.isfinite(found), -found, -jnp.inf)
        sound = jnp.any(jnp.isfinite(found))
        posterior = jax.nn.softmax(jnp.asarray(num_examples, dtype) * scores)
        alpha = jnp.asarray(decay, dtype)
        wanted = dot(posterior, jnp.asarray(table, dtype))
        weights = alpha * state.loss_weights + (1 - alpha) * wanted
        mask = present_mask(present, k)
        moves = sound if mask is None else sound & mask
        return updates, WeightSearchState(
            jnp.where(moves, weights, state.loss_weights),
            count_unless(sound, state.notfinite_count),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _default_candidates(k: int) -> np.ndarray:
    """Returns the candidates for K losses when none are given, ``[j, k]``."""
    if k == 2:
        shares = np.array(SHARES)
        return np.stack([1 - shares, shares], axis=1)
    alone = np.eye(k)
    pairs = [(alone[a] + alone[b]) / 2 for a, b in itertools.combinations(range(k), 2)]
    return np.unique([*alone, *pairs, np.full(k, 1 / k)], axis=0)
