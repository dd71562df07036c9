"""GradNorm: learned weights that give slow losses longer gradients."""

import jax
import jax.numpy as jnp

from kdopt._checks import check_range
from kdopt._simplex import nonzero
from kdopt._transform import check_num_losses, from_gram
from kdopt._typing import Balancer, Gram, Values, Weights

LEAST_VALUE = 1e-8
"""Floor of the first loss values, by which later ones are divided."""


def gradnorm(
    *,
    num_losses: int = 2,
    alpha: float | jax.Array = 1.5,
    learning_rate: float | jax.Array = 0.025,
    axis_name: str | None = None,
) -> Balancer:
    r"""Balances the lengths of the gradients against the progress of the losses.

    With :math:`w = K \, \mathrm{softmax}(s)`, norms :math:`n_i`, the mean length
    :math:`\bar G = \frac1K \sum_j w_j n_j` and the relative inverse training rate
    :math:`r_i \propto L_i / L_i^{(0)}` of mean one:

    .. math:: s \leftarrow s - \eta \, \nabla_s \frac{1}{\bar G}
        \sum_i \big| w_i n_i - \bar G r_i^\alpha \big|

    where :math:`\bar G r_i^\alpha` is treated as constant. The gradient of a loss that
    has fallen less than the others becomes longer. ``update`` needs ``values``.

    Args:
        num_losses: K.
        alpha: :math:`\alpha`, the asymmetry: 0 makes all gradients equally long.
        learning_rate: :math:`\eta`.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer. Weights are positive and sum to K, starting at 1 each: keep the
        learning rate of the plain sum. A step uses the weights learned up to the one
        before. A loss whose gradient is zero is left out of the step, and a loss counts
        from its first positive value on.

    Raises:
        ValueError: If ``alpha`` or ``learning_rate`` is negative.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.gradnorm(alpha=0.0)
        >>> grads = jnp.array([3.0, 0.0]), jnp.array([0.0, 1.0])
        >>> state = tx.init(jnp.zeros(2))
        >>> for _ in range(3):
        ...     _, state = tx.update(grads, state, values=(1.0, 1.0))
        >>> print("{:.3f} {:.3f}".format(*state.loss_weights))
        0.950 1.050

    References:
        Chen et al., `GradNorm: Gradient Normalization for Adaptive Loss Balancing in
        Deep Multitask Networks <https://arxiv.org/abs/1711.02257>`_, ICML 2018, Eq. 2
        and Algorithm 1

    Notes:
        The paper takes the norms at the last shared layer, updates the weights
        themselves and rescales them to sum to K. Here, as in public re-implementations,
        they are K times a softmax, so none becomes negative; the norms are those of the
        gradients given, and the objective is divided by :math:`\bar G`, so that the
        step does not depend on the scale of the losses.
    """
    k = check_num_losses(num_losses)
    check_range("alpha", alpha, 0.0)
    check_range("learning_rate", learning_rate, 0.0)

    def weights_fn(
        gram: Gram, values: Values, state: tuple[Weights, Values]
    ) -> tuple[Weights, tuple[Weights, Values]]:
        logits, first = (part.astype(gram.dtype) for part in state)
        active = nonzero(gram)
        begins = (first == 0) & active & (values > 0)
        first = jnp.where(begins, jnp.maximum(values, LEAST_VALUE), first)
        # A loss without a gradient is left out: no weight gives it a length.
        count = jnp.sum(active).astype(gram.dtype)
        weights = count * jax.nn.softmax(jnp.where(active, logits, -jnp.inf))
        norms = jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0))
        norms = norms / jnp.maximum(jnp.max(norms), jnp.finfo(gram.dtype).tiny)
        mean = jnp.sum(weights * norms) / count
        known = active & (first > 0)
        ratio = jnp.maximum(values, 0) / jnp.where(known, first, 1)
        ratio = jnp.where(known, ratio, 0)
        average = jnp.sum(ratio) / jnp.maximum(jnp.sum(known), 1).astype(gram.dtype)
        usable = known & (average > 0)
        rates = jnp.where(usable, ratio / jnp.where(usable, average, 1), 1)
        # The power of a relative rate in [0, k] and its sign against the length.
        goals = mean * rates ** jnp.asarray(alpha, gram.dtype)
        relative = norms / jnp.where(mean > 0, mean, 1)
        slope = weights * relative * jnp.sign(weights * norms - goals)
        slope = slope - weights * jnp.sum(slope) / count
        step = jnp.asarray(learning_rate, gram.dtype) * slope
        return k * jax.nn.softmax(logits), (logits - step, first)

    return from_gram(
        weights_fn,
        k,
        needs_values=True,
        initial_state=(jnp.zeros(k), jnp.zeros(k)),
        axis_name=axis_name,
    )
