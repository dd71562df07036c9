"""What the gradients do: pure functions from small arrays to scalars to log.

All of them look at the Gram matrix, the weights and the values only. Computed in the
same jitted step as the update they add nothing but ``[k, k]`` arithmetic.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdopt._typing import Gram, Values, Weights


def cosines(gram: Gram) -> Gram:
    r"""Cosines of the angles between the gradients.

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
    r"""Which pairs of gradients point against each other.

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
    r"""Predicted decrease of each loss, per unit of learning rate.

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
    return gram @ weights


def summary(
    gram: Gram,
    weights: Weights | None = None,
    values: Values | None = None,
    *,
    names: Sequence[str] = ("task", "distill"),
) -> dict[str, jax.Array]:
    r"""All of them as a flat dict of scalars with path-like keys, ready to log.

    For losses 0 and i: ``cosine/i``, ``conflict/i`` (1 if the cosine is negative) and
    ``dominance/i`` :math:`= \lVert g_i \rVert / \lVert g_0 \rVert`. For every loss:
    ``norm/i``, and with weights ``weight/i`` and ``decrease/i``; with values
    ``loss/i`` and, with weights too, ``relative_decrease/i``
    :math:`= \langle g_i, u \rangle / L_i`. With weights ``norm/update``, and
    ``decrease/total`` :math:`= \lVert u \rVert^2`, that of the weighted sum.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        weights: Weights of the update, ``[k]``.
        values: Loss values, ``[k]``.
        names: K names, the task first.

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
        weight/task         0.6000
        decrease/task       2.0000
        weight/distill      0.4000
        decrease/distill    2.0000
        norm/update         1.4142
        decrease/total      2.0000

    References:
        Hayder et al., DTO-KD, ICLR 2026, section 2 (conflict GrC, dominance GrD);
        Kim et al., `arXiv:2505.06270 <https://arxiv.org/abs/2505.06270>`_, Eq. 9
    """
    if len(names) != len(gram):
        raise ValueError(
            f"Expected {len(gram)} names, one per loss, got {len(names)}: pass names=."
        )
    norms = jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0))
    angles, clashes = cosines(gram), conflicts(gram)
    out = {f"norm/{name}": norms[i] for i, name in enumerate(names)}
    for i, name in list(enumerate(names))[1:]:
        out[f"cosine/{name}"] = angles[0, i]
        out[f"conflict/{name}"] = clashes[0, i]
        out[f"dominance/{name}"] = norms[i] / norms[0]
    if values is not None:
        out |= {f"loss/{name}": values[i] for i, name in enumerate(names)}
    if weights is None:
        return out
    falls = decreases(gram, weights)
    for i, name in enumerate(names):
        out[f"weight/{name}"] = weights[i]
        out[f"decrease/{name}"] = falls[i]
        if values is not None:
            out[f"relative_decrease/{name}"] = falls[i] / values[i]
    total = jnp.maximum(weights @ falls, 0)
    return out | {"norm/update": jnp.sqrt(total), "decrease/total": total}
