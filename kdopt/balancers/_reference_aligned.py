"""Weights that follow the gradient of a loss that is not itself applied."""

from typing import Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp

from kdopt._checks import check_choice, check_range
from kdopt._linalg import dot
from kdopt._running import RunningMean, move_mean, start_mean
from kdopt._simplex import min_norm_point, relative_inverse, sum_to_one, unit_gram
from kdopt._transform import check_num_losses, from_gram
from kdopt._typing import Balancer, Gram, Weights

Rule: TypeAlias = Literal["cosine", "nearest", "hypergradient"]


class ReferenceAlignedMemory(NamedTuple):
    """State that :func:`reference_aligned` carries between steps.

    Attributes:
        gram: Running mean of the Gram matrix, reference included, ``[k, k]``.
        logits: Logits of the weights, ``[k - 1]``; only ``hypergradient`` moves them.
    """

    gram: RunningMean
    logits: jax.Array


def reference_aligned_weights(
    gram: Gram, *, rule: Literal["cosine", "nearest"] = "cosine"
) -> Weights:
    r"""Weights losses by how well their gradients agree with the last, the reference.

    With unit gradients :math:`\hat g_i`, and :math:`\hat r` for the reference:

    .. math::
        \pi^{cosine} \propto \max(0, \langle \hat g, \hat r \rangle), \qquad
        \pi^{nearest} = \arg\min_{\pi \ge 0, \, \sum_i \pi_i = 1}
            \Big\lVert \sum_i \pi_i \hat g_i - \hat r \Big\rVert^2, \qquad
        w_i = \frac{\pi_i / \lVert g_i \rVert}{\sum_j \pi_j / \lVert g_j \rVert}

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``, the reference last.
        rule: ``"cosine"`` or ``"nearest"``.

    Returns:
        Non-negative weights of sum one, ``[k]``; that of the reference is 0. With
        ``"cosine"`` all are zero if no loss agrees with it. If the reference is zero
        the others get equal shares; a zero gradient has no weight.

    Raises:
        ValueError: If ``rule`` is unknown.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> grads = jnp.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [3.0, 4.0]])
        >>> weights = kdopt.reference_aligned_weights(grads @ grads.T)
        >>> print("{:.2f} {:.2f} {:.2f} {:.2f}".format(*weights))
        0.60 0.40 0.00 0.00

    References:
        Du et al., `Adapting Auxiliary Losses Using Gradient Similarity
        <https://arxiv.org/abs/1812.02224>`_, 2018 (cosines with one loss)
    """
    check_choice("rule", rule, ("cosine", "nearest"))
    cosines, norms, active = unit_gram(gram)
    agree, known = cosines[-1, :-1], active[-1]
    others, some = active[:-1], jnp.any(active[:-1])
    if rule == "cosine":
        parts = jnp.maximum(agree, 0)
    else:
        # The differences from the reference; the shares sum to one.
        offsets = cosines[:-1, :-1] - agree[:, None] - agree[None, :] + 1
        kept = others[:, None] & others[None, :]
        nearest = min_norm_point(jnp.where(kept, jnp.maximum(offsets, -4), 0))
        parts = jnp.where(others, nearest, 0)
    parts = jnp.where(known, parts, 1) * relative_inverse(norms[:-1], others)
    total = jnp.sum(parts)
    shares = jnp.where(total > 0, parts / jnp.where(total > 0, total, 1), 0)
    shares = jnp.where(known | some, shares, 1 / len(shares))
    return jnp.append(shares, jnp.zeros(1, gram.dtype))


def reference_aligned(
    *,
    num_losses: int = 3,
    rule: Rule = "cosine",
    decay: float | jax.Array = 0.9,
    learning_rate: float | jax.Array = 0.1,
    axis_name: str | None = None,
) -> Balancer:
    r"""Weights the losses to help a reference loss that is not itself applied.

    The last gradient is that of a loss on trusted examples: a small clean batch, or the
    task that counts. The update is a convex combination of the others that follows it.
    All rules use a running mean of the Gram matrix, since inner products of single
    batches are mostly noise:

    * ``"cosine"`` and ``"nearest"``: see :func:`reference_aligned_weights`.
    * ``"hypergradient"``: a step moves the reference loss by
      :math:`-\eta \sum_i w_i r_i` with :math:`r_i = \langle g_i, g_{ref} \rangle`, so
      the logits of the weights follow the derivative of that:

      .. math:: w = \mathrm{softmax}(s), \qquad
          s_i \leftarrow s_i + \beta \, w_i \frac{r_i - w^\top r}
              {\lVert g_{ref} \rVert \max_j \lVert g_j \rVert}

    It takes K + 1 backward passes. :func:`kdopt.linearize` computes all :math:`r_i` in
    one forward-mode pass, whatever K is; the scalarizer :func:`kdopt.hypergradient`
    learns from these.

    Args:
        num_losses: Number of gradients, the reference included: K + 1, at least 2.
        rule: One of these three.
        decay: Decay of the running mean, in [0, 1); 0 uses the last step only.
        learning_rate: :math:`\beta`, for ``"hypergradient"``.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer. The weights sum to one, that of the reference is 0: keep the
        learning rate of a weighted mean. Where no loss agrees with the reference the
        rule ``"cosine"`` takes no step. On a batch without a reference (a gradient of
        zeros, or ``present``) the running mean is used.

    Raises:
        ValueError: If ``num_losses`` is below 2, ``rule`` is unknown, or a number is
            out of its range.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.reference_aligned(num_losses=4)
        >>> grads = (
        ...     jnp.array([1.0, 0.0]),
        ...     jnp.array([0.0, 2.0]),
        ...     jnp.array([-1.0, 0.0]),
        ...     jnp.array([3.0, 4.0]),  # the reference
        ... )
        >>> update, state = tx.update(grads, tx.init(jnp.zeros(2)))
        >>> print("{:.2f} {:.2f}".format(*update))
        0.60 0.80

    References:
        Lin et al., Adaptive Auxiliary Task Weighting for Reinforcement Learning,
        NeurIPS 2019 (OL-AUX);
        Liu et al., `Auto-Lambda: Disentangling Dynamic Task Relationships
        <https://arxiv.org/abs/2202.03091>`_, TMLR 2022
    """
    k = check_num_losses(num_losses, minimum=2)
    check_choice("rule", rule, get_args(Rule))
    check_range("decay", decay, 0.0, 1.0, open_maximum=True)
    check_range("learning_rate", learning_rate, 0.0, open_minimum=True)

    def weights_fn(
        gram: Gram, _: None, memory: ReferenceAlignedMemory
    ) -> tuple[Weights, ReferenceAlignedMemory]:
        active = jnp.diagonal(gram) > 0
        both = active[:, None] & active[None, :]
        mean = move_mean(memory.gram, gram, decay, both)
        # A loss absent now has no weight, whatever it had before.
        here = active.at[-1].set(True)
        matrix = jnp.where(here[:, None] & here[None, :], mean.value, 0)
        if rule != "hypergradient":
            weights = reference_aligned_weights(matrix, rule=rule)
            return weights, ReferenceAlignedMemory(mean, memory.logits)
        logits = _hypergradient_step(memory.logits, matrix, learning_rate)
        shares = sum_to_one(jnp.where(active[:-1], jax.nn.softmax(logits), 0))
        weights = jnp.append(shares, jnp.zeros(1, gram.dtype))
        return weights, ReferenceAlignedMemory(mean, logits)

    return from_gram(
        weights_fn,
        k,
        initial_state=ReferenceAlignedMemory(start_mean(k, k), jnp.zeros(k - 1)),
        axis_name=axis_name,
    )


def _hypergradient_step(
    logits: jax.Array, gram: Gram, learning_rate: float | jax.Array
) -> jax.Array:
    """Returns the logits after a step; those of losses without a gradient stay."""
    cosines, norms, active = unit_gram(gram)
    longest = jnp.max(jnp.where(active[:-1], norms[:-1], 0))
    relative = norms[:-1] / jnp.where(longest > 0, longest, 1)
    slopes = jnp.where(active[:-1], cosines[-1, :-1] * relative, 0)
    weights = sum_to_one(jnp.where(active[:-1], jax.nn.softmax(logits), 0))
    slope = weights * (slopes - dot(weights, slopes))
    return logits + jnp.asarray(learning_rate, gram.dtype) * slope
