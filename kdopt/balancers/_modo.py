"""MoDo: one projected gradient step per batch towards the min-norm weights."""

import jax
import jax.numpy as jnp

from kdopt._checks import check_range
from kdopt._linalg import dot
from kdopt._simplex import nonzero, project_simplex, sum_to_one
from kdopt._transform import check_num_losses, from_gram
from kdopt._typing import Balancer, Gram, Weights


def modo_weights(
    gram: Gram,
    previous: Weights,
    *,
    gamma: float | jax.Array = 0.1,
    rho: float | jax.Array = 0.1,
) -> Weights:
    r"""Takes one step of the weights towards the point of least norm.

    .. math:: \lambda \leftarrow \Pi_\Delta\big(
        \lambda - \gamma (A + \rho I) \lambda \big)

    Args:
        gram: :math:`A`, ``[k, k]``: the Gram matrix of the gradients, or the products
            :math:`\langle g_i, g'_j \rangle` of the gradients of two batches, which
            estimate it without bias.
        previous: :math:`\lambda`, ``[k]``.
        gamma: Step size :math:`\gamma`.
        rho: :math:`\rho`; pulls towards equal weights.

    Returns:
        Non-negative weights of sum one, ``[k]``. A zero gradient is left out: it has no
        weight, and the others take the step without it.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> weights = jnp.array([0.5, 0.5])
        >>> weights = kdopt.modo_weights(gram, weights, gamma=0.01, rho=0.0)
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.5500 0.4500

    References:
        Chen et al., `Three-Way Trade-Off in Multi-Objective Learning: Optimization,
        Generalization and Conflict-Avoidance <https://arxiv.org/abs/2305.20057>`_,
        NeurIPS 2023, Algorithm 1
    """
    return modo_step(gram, previous, gamma=gamma, rho=rho)[0]


def modo_step(
    gram: Gram,
    previous: Weights,
    *,
    gamma: float | jax.Array,
    rho: float | jax.Array,
) -> tuple[Weights, Weights]:
    """Returns the weights to use now, and those to start the next step from.

    In the second a zero gradient keeps its weight, for when its loss returns.
    """
    active = nonzero(gram)
    present = jnp.where(active, previous, 0)
    share = jnp.sum(present)
    start = jnp.where(
        share > 0, sum_to_one(present), sum_to_one(active.astype(gram.dtype))
    )
    slope = dot(gram, start) + jnp.asarray(rho, gram.dtype) * start
    weights = project_simplex(start - jnp.asarray(gamma, gram.dtype) * slope, active)
    return weights, jnp.where(active, share * weights, previous)


def modo(
    *,
    num_losses: int = 2,
    gamma: float | jax.Array = 0.1,
    rho: float | jax.Array = 0.1,
    axis_name: str | None = None,
) -> Balancer:
    """Balances by weights that slowly follow MGDA (MoDo).

    The weights average over many batches what :func:`kdopt.min_norm` decides for each
    batch: they are smooth even if gradients are noisy.

    Args:
        num_losses: K.
        gamma: Step size of the weights.
        rho: Pull towards equal weights.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`modo_weights` for the equation. Weights sum to one. How
        fast they move depends on the scale of the gradients: ``gamma`` below one over
        the squared norm of the longest is safe; far above it the weights jump from one
        gradient to another. A zero gradient has no weight.

    Raises:
        ValueError: If ``gamma`` is not positive or ``rho`` negative.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.modo(gamma=0.01, rho=0.0)
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> state = tx.init(jnp.zeros(3))
        >>> for _ in range(2):
        ...     _, state = tx.update(grads, state)
        >>> print("{:.3f} {:.3f}".format(*state.loss_weights))
        0.575 0.425

    Notes:
        The paper uses the gradients of two further batches for the step of the weights,
        so that noise does not bias it. Here one batch serves both purposes: for the
        unbiased form compute the products of two batches and call :func:`modo_weights`
        in your own step.
    """
    k = check_num_losses(num_losses)
    check_range("gamma", gamma, 0.0, open_minimum=True)
    check_range("rho", rho, 0.0)

    def weights_fn(gram: Gram, _: None, previous: Weights) -> tuple[Weights, Weights]:
        return modo_step(gram, previous.astype(gram.dtype), gamma=gamma, rho=rho)

    return from_gram(
        weights_fn, k, initial_state=jnp.full(k, 1 / k), axis_name=axis_name
    )
