"""Diagnostics of the gradients: pure functions from small arrays to scalars to log.

All but :func:`buffers`, :func:`update_effects` and :func:`calibrated_cross_entropy` use
only the Gram matrix, the weights and the values. Called in the jitted step with the
Gram matrix from the state of the balancer, they add only ``[k, k]`` arithmetic.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdopt._checks import loss_names
from kdopt._dtypes import at_least_float32
from kdopt._gram import gram as gram_of
from kdopt._linalg import dot, quadratic_form
from kdopt._loss_weights import unwrap
from kdopt._parabola import harm_free_interval, lambda_vertex
from kdopt._present import present_mask
from kdopt._simplex import min_norm_point, sum_to_one
from kdopt._typing import (
    Gram,
    Mask,
    PerLossGrads,
    PresentLike,
    Scalar,
    Values,
    Weights,
)

__all__ = [
    "alignments",
    "buffers",
    "calibrated_cross_entropy",
    "conflicts",
    "cosines",
    "decreases",
    "stationarity",
    "summary",
    "update_effects",
]


def __dir__() -> list[str]:
    return __all__


def cosines(gram: Gram) -> Gram:
    r"""Returns the cosines of the angles between the gradients.

    .. math:: \cos_{ij} = \frac{G_{ij}}{\sqrt{G_{ii} G_{jj}}}

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.

    Returns:
        ``[k, k]`` in [-1, 1]; 0 where a gradient is zero.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import diagnostics
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print(f"{diagnostics.cosines(gram)[0, 1]:.4f}")
        -0.8412
    """
    norms = jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0))
    inverse = jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0)
    return jnp.clip(gram * inverse[:, None] * inverse[None, :], -1, 1)


def conflicts(gram: Gram) -> Gram:
    r"""Marks the pairs of gradients that point against each other.

    .. math:: \mathrm{GrC}_{ij} = [\, G_{ij} < 0 \,]

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.

    Returns:
        ``[k, k]`` of zeros and ones.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import diagnostics
        >>> print(diagnostics.conflicts(jnp.array([[18.0, -22.0], [-22.0, 38.0]])))
        [[0. 1.]
         [1. 0.]]

    References:
        Hayder et al., DTO-KD, ICLR 2026, section 2 (gradient conflict, GrC)
    """
    return (gram < 0).astype(gram.dtype)


def decreases(gram: Gram, weights: Weights) -> Weights:
    r"""Predicts the decrease of each loss, per unit of learning rate.

    .. math:: d_i = \langle g_i, u \rangle = (G w)_i

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        weights: Weights of the update, ``[k]``.

    Returns:
        ``[k]``; a loss with a negative entry rises, to first order.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import diagnostics
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print(diagnostics.decreases(gram, jnp.array([0.5, 0.5])))
        [-2.  8.]
    """
    return dot(gram, weights)


def alignments(gram: Gram, weights: Weights) -> Weights:
    r"""Returns the cosine of the angle between each gradient and the update.

    .. math:: \frac{\langle g_i, u \rangle}{\lVert g_i \rVert \lVert u \rVert}
        = \frac{(G w)_i}{\sqrt{G_{ii} \, w^\top G w}}

    With the Gram matrix of momentum buffers and weights of one, it tells which loss
    leads a trainer with separate momenta.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        weights: Weights of the update, ``[k]``.

    Returns:
        ``[k]`` in [-1, 1]; 0 where a gradient or the update is zero.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import diagnostics
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print(diagnostics.alignments(gram, jnp.ones(2)).round(4))
        [-0.2722  0.7493]

    References:
        Zhao et al., `DOT <https://arxiv.org/abs/2307.08436>`_, ICCV 2023, Fig. 5
    """
    falls = decreases(gram, weights)
    squares = jnp.maximum(jnp.diagonal(gram), 0)
    # One root after the other: the product of two squares may overflow.
    lengths = jnp.sqrt(squares) * jnp.sqrt(jnp.maximum(dot(weights, falls), 0))
    some = lengths > 0
    return jnp.clip(jnp.where(some, falls / jnp.where(some, lengths, 1), 0), -1, 1)


def stationarity(gram: Gram) -> Scalar:
    r"""Measures how far the gradients are from Pareto stationarity.

    .. math:: \frac{\min_{w \ge 0, \sum w = 1} \lVert \sum_i w_i g_i \rVert}
        {\max_i \lVert g_i \rVert}

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.

    Returns:
        In [0, 1]; 0 where no direction lowers all losses: gradients cancel, or one of
        them is zero.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import diagnostics
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> print(f"{diagnostics.stationarity(gram):.4f}")
        0.2294

    References:
        Desideri, `Multiple-gradient descent algorithm (MGDA)
        <https://doi.org/10.1016/j.crma.2012.03.014>`_, 2012
    """
    squares = jnp.diagonal(gram)
    scale = jnp.where(jnp.max(squares) > 0, jnp.max(squares), 1)
    weights = min_norm_point(gram)
    least = jnp.where(jnp.min(squares) > 0, quadratic_form(gram / scale, weights), 0)
    return jnp.sqrt(jnp.clip(least, 0, 1))


def buffers(
    traces: PerLossGrads, *, names: Sequence[str] | None = None
) -> dict[str, jax.Array]:
    r"""Reports on the momentum buffers of DOT; reads them once.

    The keys are ``buffer/norm/i``; ``buffer/alignment/i``, the cosine between a buffer
    and the update :math:`v = \sum_i v_i`; and ``buffer/cosine/i``, that between the
    buffers of losses 0 and i.

    Args:
        traces: K momentum buffers: ``optax.tree.get(state, "traces")``.
        names: See :func:`summary`.

    Returns:
        Scalars by key.

    Raises:
        ValueError: If there are not K names.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import diagnostics
        >>> traces = jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0])
        >>> print(f"{diagnostics.buffers(traces)['buffer/alignment/distill']:.4f}")
        0.7493

    References:
        Zhao et al., `DOT <https://arxiv.org/abs/2307.08436>`_, ICCV 2023, Fig. 5
    """
    traces = unwrap(traces)
    names = loss_names(names, len(traces))
    matrix = gram_of(traces)
    norms = jnp.sqrt(jnp.diagonal(matrix))
    led = alignments(matrix, jnp.ones_like(norms))
    angles = cosines(matrix)[0]
    out = {f"buffer/norm/{name}": norms[i] for i, name in enumerate(names)}
    out |= {f"buffer/alignment/{name}": led[i] for i, name in enumerate(names)}
    return out | {
        f"buffer/cosine/{name}": angles[i] for i, name in enumerate(names) if i
    }


def update_effects(
    grads: PerLossGrads,
    updates: Any,
    *,
    names: Sequence[str] | None = None,
    axis_name: str | None = None,
) -> dict[str, jax.Array]:
    r"""Predicts what an update does to each loss; reads the gradients once.

    The keys are ``update/change/i``, the predicted change
    :math:`\langle g_i, \Delta \theta \rangle` of loss i; ``update/cosine/i``, the
    cosine of its gradient with :math:`-\Delta \theta`; and ``update/rises/i``, 1 if
    that is negative. After momentum or Adam a loss may rise although the balanced
    gradient lowers it; :func:`kdopt.guard` prevents that.

    Args:
        grads: K trees.
        updates: What the whole chain returned, to be added to the parameters.
        names: See :func:`summary`.
        axis_name: Mesh axis over which gradients and update are sharded.

    Returns:
        Scalars by key.

    Raises:
        ValueError: If there are not K names.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import diagnostics
        >>> grads = jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0])
        >>> effects = diagnostics.update_effects(grads, jnp.array([-0.1, -0.1, -0.1]))
        >>> for key, value in effects.items():
        ...     print(f"{key:22} {value:7.4f}")
        update/change/task      0.2000
        update/cosine/task     -0.2722
        update/rises/task       1.0000
        update/change/distill  -0.8000
        update/cosine/distill   0.7493
        update/rises/distill    0.0000
    """
    grads, updates = unwrap((grads, updates))
    rows = jax.tree.map(at_least_float32, (*grads, updates))
    names = loss_names(names, len(grads))
    matrix = gram_of(rows, axis_name=axis_name)
    changes, angles = matrix[:-1, -1], -cosines(matrix)[:-1, -1]
    out = {}
    for i, name in enumerate(names):
        out[f"update/change/{name}"] = changes[i]
        out[f"update/cosine/{name}"] = angles[i]
        out[f"update/rises/{name}"] = (angles[i] < 0).astype(matrix.dtype)
    return out


def calibrated_cross_entropy(logits: jax.Array, labels: jax.Array) -> Scalar:
    r"""Computes the cross-entropy of the best-scaled logits: what a classifier knows.

    .. math:: \min_s \; -\frac1n \sum_b \log \mathrm{softmax}(s \, z_b)_{y_b}

    A student of soft targets is underconfident, one of wrong labels overconfident; the
    scale removes that, so the result compares what they have learned
    (:func:`kdopt.weight_search`).

    Args:
        logits: ``[n, c]``.
        labels: Classes, integers ``[n]``.

    Returns:
        The lowest value over 41 scales from 1/16 to 16, at least float32.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import diagnostics
        >>> logits = jnp.array([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
        >>> labels = jnp.array([0, 0, 1, 1])  # three of four are right
        >>> print(f"{diagnostics.calibrated_cross_entropy(logits, labels):.3f}")
        0.562

    References:
        Guo et al., `On Calibration of Modern Neural Networks
        <https://arxiv.org/abs/1706.04599>`_, ICML 2017, Section 4.2
    """
    logits = at_least_float32(logits)
    scales = jnp.geomspace(1 / 16, 16, 41, dtype=logits.dtype)

    def mean_loss(scale: jax.Array) -> Scalar:
        logs = jax.nn.log_softmax(scale * logits)
        return -jnp.mean(jnp.take_along_axis(logs, labels[:, None], axis=1))

    return jnp.min(jax.vmap(mean_loss)(scales))


def summary(
    gram: Gram,
    weights: Weights | None = None,
    values: Values | None = None,
    *,
    names: Sequence[str] | None = None,
    present: PresentLike = None,
) -> dict[str, jax.Array]:
    r"""Summarises a Gram matrix as a flat dict of scalars, ready to log.

    For every loss ``norm/i``; for losses 0 and i ``cosine/i``, ``conflict/i`` (1 if the
    cosine is negative) and ``dominance/i`` :math:`= \lVert g_i \rVert / \lVert g_0
    \rVert`; ``stationarity``. With two losses ``lambda/vertex``, where both fall
    equally, and ``lambda/low`` and ``lambda/high``, between which neither rises.

    With weights ``weight/i``, ``decrease/i`` :math:`= \langle g_i, u \rangle` and
    ``alignment/i``, its cosine; ``norm/update`` and ``decrease/total``
    :math:`= \lVert u \rVert^2`, that of the weighted sum; with two losses
    ``lambda/used``. With values ``loss/i`` and, with weights, ``relative_decrease/i``.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        weights: Weights of the update, ``[k]``.
        values: Loss values, ``[k]``.
        names: K names, the task first; by default ``task, distill``, or ``task,
            distill_1, distill_2, ...`` for more than two.
        present: Which losses are present, ``[k]``. Entries that need an absent loss are
            NaN.

    Returns:
        Scalars by key.

    Raises:
        ValueError: If there are not K names.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import diagnostics
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> for key, value in diagnostics.summary(gram, jnp.array([0.6, 0.4])).items():
        ...     print(f"{key:18} {value:7.4f}")
        norm/task           4.2426
        norm/distill        6.1644
        cosine/distill     -0.8412
        conflict/distill    1.0000
        dominance/distill   1.4530
        stationarity        0.2294
        lambda/vertex       0.4000
        lambda/low          0.3667
        lambda/high         0.4500
        weight/task         0.6000
        decrease/task       2.0000
        alignment/task      0.3333
        weight/distill      0.4000
        decrease/distill    2.0000
        alignment/distill   0.2294
        norm/update         1.4142
        decrease/total      2.0000
        lambda/used         0.4000

    References:
        Hayder et al., DTO-KD, ICLR 2026, section 2 (conflict GrC, dominance GrD);
        Kim et al., `arXiv:2505.06270 <https://arxiv.org/abs/2505.06270>`_, Eq. 9-14
    """
    gram, weights, values = jax.tree.map(jnp.asarray, unwrap((gram, weights, values)))
    names = loss_names(names, len(gram))
    norms = jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0))
    angles, clashes = cosines(gram), conflicts(gram)
    out = {f"norm/{name}": norms[i] for i, name in enumerate(names)}
    for i, name in list(enumerate(names))[1:]:
        out[f"cosine/{name}"] = angles[0, i]
        out[f"conflict/{name}"] = clashes[0, i]
        out[f"dominance/{name}"] = norms[i] / norms[0]
    out["stationarity"] = stationarity(gram)
    if len(names) == 2:
        out["lambda/vertex"] = lambda_vertex(gram)
        out["lambda/low"], out["lambda/high"] = harm_free_interval(gram)
    if values is not None:
        out |= {f"loss/{name}": values[i] for i, name in enumerate(names)}
    if weights is not None:
        out |= _of_update(gram, weights, values, names)
    mask = present_mask(present, len(gram))
    return out if mask is None else _where_defined(out, names, mask)


def _where_defined(
    metrics: dict[str, jax.Array], names: Sequence[str], mask: Mask
) -> dict[str, jax.Array]:
    """Sets metrics of absent losses to NaN."""
    here = dict(zip(names, mask, strict=True))

    def defined(key: str) -> jax.Array | bool:
        kind, _, name = key.partition("/")
        if kind in ("cosine", "conflict", "dominance"):
            return mask[0] & here[name]
        if kind in ("stationarity", "lambda"):
            return jnp.all(mask)
        return here.get(name, True)

    return {key: jnp.where(defined(key), x, jnp.nan) for key, x in metrics.items()}


def _of_update(
    gram: Gram, weights: Weights, values: Values | None, names: Sequence[str]
) -> dict[str, jax.Array]:
    """Computes the metrics that need the weights."""
    falls, led = decreases(gram, weights), alignments(gram, weights)
    out = {}
    for i, name in enumerate(names):
        out[f"weight/{name}"] = weights[i]
        out[f"decrease/{name}"] = falls[i]
        out[f"alignment/{name}"] = led[i]
        if values is not None:
            out[f"relative_decrease/{name}"] = falls[i] / values[i]
    total = jnp.maximum(dot(weights, falls), 0)
    out |= {"norm/update": jnp.sqrt(total), "decrease/total": total}
    if len(names) == 2:
        out["lambda/used"] = sum_to_one(weights)[1]
    return out
