"""FAMO: fast adaptive multitask optimisation."""

from typing import Literal, get_args

import jax
import optax

from kdopt._checks import check_choice
from kdopt._log_losses import Bounds
from kdopt._typing import Scalarizer
from kdopt.scalarizers._log_softmax import log_softmax

FamoSignal = Literal["same_batch", "next", "gram"]


def famo(
    learning_rate: optax.ScalarOrSchedule = 0.025,
    *,
    num_losses: int = 2,
    weight_decay: float | jax.Array = 0.001,
    signal: FamoSignal = "same_batch",
    min_losses: Bounds = 0.0,
    eps: float | jax.Array = 1e-8,
) -> Scalarizer:
    r"""Balances the rates at which the losses fall, with one backward pass per step.

    With :math:`D_i = L_i - b_i` and :math:`\pi = \mathrm{softmax}(\xi)`:

    .. math::
        u = \frac{\sum_i \pi_i \nabla \log D_i}{\sum_j \pi_j / D_j}, \qquad
        \delta_i = \log D_i(\theta_t) - \log D_i(\theta_{t+1}), \qquad
        \xi \leftarrow \mathrm{adam}\big(\xi,\;
            \mathrm{diag}(\pi) (\delta - \pi^\top \delta \, \mathbf 1) + \gamma \xi\big)

    The loss that just fell most loses weight. The weights sum to one: use the learning
    rate of a mean of losses.

    Args:
        learning_rate: Learning rate of Adam on the logits, a number or a schedule.
        num_losses: K, at least 2.
        weight_decay: :math:`\gamma`, an L2 term that pulls towards equal weights.
        signal: Where :math:`\delta` comes from. ``"same_batch"``: one more forward pass
            on the batch, ``update(..., value_fn=value_fn)`` with
            ``value_fn(new_params) -> values``; FAMO must then be the last in its chain.
            ``"next"``: the values of the next step, for free, exact if the batches are
            equal. ``"gram"``: first-order, from the Gram matrix of the raw gradients
            passed as ``gram=``; if it holds NaN the logits stay as they are.
        min_losses: Lower bounds :math:`b_i`, a number or ``[k]``.
        eps: Floor of positive :math:`D_i`.

    Returns:
        A scalarizer: it passes the gradient through and learns from ``values``, which
        must be above their bounds: the weights use the last value that was, a loss of
        exactly 0 counts as absent, and a step with any other is skipped and counted.
        The next backward pass takes ``kdopt.loss_weights(opt_state, values)``.

    Raises:
        ValueError: If ``signal`` is unknown or ``num_losses`` below 2.

    Examples:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> import kdopt
        >>> def losses_fn(x):
        ...     return jnp.sum(x**2), 0.01 * jnp.sum((x - 1) ** 2)
        >>> tx = optax.chain(optax.sgd(0.1), kdopt.famo())
        >>> params = jnp.array([2.0, 3.0])
        >>> state = tx.init(params)
        >>> grad_fn = kdopt.value_and_weighted_grad(losses_fn)
        >>> weights = lambda values: kdopt.loss_weights(state, values)
        >>> values, grads = grad_fn(params, weights=weights)
        >>> _, state = tx.update(
        ...     grads, state, params, values=values, value_fn=losses_fn
        ... )
        >>> weights = kdopt.loss_weights(state, jnp.ones(2))
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.5125 0.4875

    References:
        Liu et al., `FAMO: Fast Adaptive Multitask Optimization
        <https://arxiv.org/abs/2306.03792>`_, NeurIPS 2023, Algorithm 1

    Notes:
        The decay differs between the authors' files (github.com/Cranial-XIX/FAMO,
        0a6ad06: 0.01, 1e-5; their scripts 0.001 to 0.01, and 0 for the toy problem).
        They also clip the gradient at norm 1: put ``optax.clip_by_global_norm(1.0)``
        before it. :func:`kdopt.dto_kd_amortized` is the same engine with other
        defaults.
    """
    check_choice("signal", signal, get_args(FamoSignal))
    return log_softmax(
        learning_rate,
        num_losses=num_losses,
        weight_decay=weight_decay,
        signal=signal,
        min_losses=min_losses,
        eps=eps,
    )
