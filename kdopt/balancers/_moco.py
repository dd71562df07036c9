"""MoCo: multi-objective descent with gradients averaged over batches."""

import jax
import jax.numpy as jnp

from kdopt._checks import check_range
from kdopt._traces import from_traces
from kdopt._transform import check_num_losses
from kdopt._typing import Balancer, Gram, Weights
from kdopt.balancers._modo import modo_step


def moco(
    *,
    num_losses: int = 2,
    beta: float | jax.Array = 0.5,
    beta_decay: float | jax.Array = 0.5,
    gamma: float | jax.Array = 0.1,
    gamma_decay: float | jax.Array = 0.5,
    rho: float | jax.Array = 0.0,
    axis_name: str | None = None,
) -> Balancer:
    r"""Balances running means of the gradients by a slow descent to MGDA (MoCo).

    .. math::
        y_i &\leftarrow y_i - \beta_t (y_i - g_i), \qquad
            \beta_t = \beta \, t^{-\sigma_\beta} \\
        \lambda &\leftarrow \Pi_\Delta\big( \lambda
            - \gamma_t (Y Y^\top + \rho I) \lambda \big), \qquad
            \gamma_t = \gamma \, t^{-\sigma_\gamma} \\
        u &= \sum_i \lambda_i y_i

    The Gram matrix of one batch overestimates the norms by the noise. That of gradients
    averaged over many batches does not, in the limit.

    It makes two passes over gradients and means, which are K copies of the parameters.

    Args:
        num_losses: K.
        beta: :math:`\beta` in (0, 1].
        beta_decay: :math:`\sigma_\beta \ge 0`.
        gamma: :math:`\gamma > 0`.
        gamma_decay: :math:`\sigma_\gamma \ge 0`.
        rho: :math:`\rho \ge 0`; pulls towards equal weights.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer, with a :class:`kdopt.balancers.TracesState`. Weights sum to one and
        apply to the running means; a zero mean has none. How fast they move depends on
        the scale of the gradients.

    Raises:
        ValueError: If a number is out of its range.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.moco(gamma=0.01)
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> state = tx.init(jnp.zeros(3))
        >>> update = jax.jit(tx.update)
        >>> for _ in range(100):
        ...     _, state = update(grads, state)
        >>> print("{:.3f} {:.3f}".format(*state.loss_weights))
        0.600 0.400

    References:
        Fernando et al., `Mitigating Gradient Bias in Multi-objective Learning: A
        Provably Convergent Approach <https://openreview.net/forum?id=dLAYGdKTi2>`_,
        ICLR 2023, Algorithm 1

    Notes:
        The paper projects onto the simplex, as here. The public code takes a softmax of
        the weights instead, which pulls them towards equality at every step, and first
        scales each gradient to the length of its loss: for the latter put
        ``kdopt.each`` before it. The decays 0.5 are those of the public code.
    """
    k = check_num_losses(num_losses)
    check_range("beta", beta, 0.0, 1.0, open_minimum=True)
    check_range("beta_decay", beta_decay, 0.0)
    check_range("gamma", gamma, 0.0, open_minimum=True)
    check_range("gamma_decay", gamma_decay, 0.0)
    check_range("rho", rho, 0.0)

    def power(start: float | jax.Array, decay: float | jax.Array, count: jax.Array):
        exponent = -jnp.asarray(decay, count.dtype)
        return jnp.asarray(start, count.dtype) * count**exponent

    def weights_fn(
        gram: Gram, count: jax.Array, previous: Weights
    ) -> tuple[Weights, Weights]:
        rate = power(gamma, gamma_decay, count)
        return modo_step(gram, previous.astype(gram.dtype), gamma=rate, rho=rho)

    return from_traces(
        weights_fn,
        lambda count: power(beta, beta_decay, count),
        num_losses=k,
        initial_state=jnp.full(k, 1 / k),
        axis_name=axis_name,
    )
