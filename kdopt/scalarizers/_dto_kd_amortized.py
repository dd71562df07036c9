"""DTO-KD, amortised: the weights follow the losses, one backward pass per step."""

from typing import get_args

import jax
import optax

from kdopt._checks import check_choice
from kdopt._log_losses import Bounds
from kdopt._typing import Scalarizer
from kdopt.scalarizers._log_softmax import Signal, log_softmax


def dto_kd_amortized(
    learning_rate: optax.ScalarOrSchedule = 0.025,
    *,
    num_losses: int = 2,
    weight_decay: float | jax.Array = 0.01,
    signal: Signal = "next",
    min_losses: Bounds = 0.0,
    eps: float | jax.Array = 1e-8,
) -> Scalarizer:
    r"""Learns the trade-off weights of DTO-KD, with one backward pass per step.

    With :math:`D_i = L_i - b_i` and logits :math:`\xi` under a softmax:

    .. math::
        \pi = \mathrm{softmax}(\xi), \qquad
        u = \frac{\sum_i \pi_i \nabla \log D_i}{\sum_j \pi_j / D_j}, \qquad
        \xi \leftarrow \mathrm{adam}\big(\xi,\;
            \mathrm{diag}(\pi) (\delta - \pi^\top \delta \, \mathbf 1) + \gamma \xi\big)

    where :math:`\delta_i \approx \eta \langle \nabla \log D_i, u \rangle` says how fast
    each log-loss falls: the loss that just fell most loses weight. In equilibrium all
    fall at the same rate, as in the exact form (:func:`kdopt.dto_kd`), which this
    follows with a lag of about ``1 / learning_rate`` steps. The update is a convex
    combination of the gradients.

    =============== =============================================== ====================
    signal          :math:`\delta`                                  needs in ``update``
    =============== =============================================== ====================
    ``next``        :math:`\log D` at the last step minus at this   ``values``
    ``same_batch``  :math:`\log D` before minus after the update,   ``values, value_fn``
                    on the same batch (one more forward pass)
    ``directional`` derivative of :math:`-\log D` along the update, ``values,
                    exact (one forward-mode pass)                   slopes_fn``
    ``gram``        :math:`G^{\log} \pi`, exact                     ``values, gram``
    ``literal``     the printed Eq. 18, with no gradient in it      ``values``
    =============== =============================================== ====================

    ``same_batch`` calls ``value_fn(new_params) -> values`` at ``params + updates``, and
    ``directional`` calls ``slopes_fn(updates)``, that of :func:`kdopt.linearize` at
    ``params``, so with these it must be the last in its chain. The second is the limit
    of the first for small steps: :math:`G \pi = J (J^\top \pi)` is a directional
    derivative of the losses. ``gram`` is the Gram matrix of the raw gradients; if it
    holds NaN the weights stay as they are, so it can be passed every n steps.

    Args:
        learning_rate: Learning rate of Adam on the logits, a number or a schedule.
        num_losses: K, at least 2.
        weight_decay: :math:`\gamma`, an L2 term that pulls towards equal weights.
        signal: One of the five above.
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
        >>> tx = optax.chain(optax.sgd(0.1), kdopt.dto_kd_amortized())
        >>> params = jnp.array([2.0, 3.0])
        >>> state = tx.init(params)
        >>> grad_fn = kdopt.value_and_weighted_grad(losses_fn)
        >>> for _ in range(50):
        ...     weights = lambda values: kdopt.loss_weights(state, values)
        ...     values, grads = grad_fn(params, weights=weights)
        ...     updates, state = tx.update(grads, state, params, values=values)
        ...     params = optax.apply_updates(params, updates)
        >>> print(f"{params[0]:.2f} {params[1]:.2f}")
        1.83 2.70

    References:
        Hayder et al., DTO-KD: Dynamic Trade-off Optimization for Effective Knowledge
        Distillation, ICLR 2026, Eq. 18 and Algorithm 1;
        Liu et al., `FAMO: Fast Adaptive Multitask Optimization
        <https://arxiv.org/abs/2306.03792>`_, NeurIPS 2023, Algorithm 1

    Notes:
        Eq. 18 as printed differentiates :math:`\frac12 (\sum_i \pi_i \log L_i)^2`,
        without the gradient signs: it is unrelated to the minimum-norm problem, its
        sign flips when a loss passes 1, and a softmax of :math:`\pi` itself contracts
        to equal weights. ``literal`` does exactly that, for the record. Algorithm 1
        uses the loss after the step, with FAMO's settings, so the other four follow
        that interpretation; the derivative of :math:`\frac12 \lVert \sum_i \pi_i \nabla
        \log L_i \rVert^2` is :math:`G^{\log} \pi`, which ``directional`` and ``gram``
        give exactly.
    """
    check_choice("signal", signal, get_args(Signal))
    return log_softmax(
        learning_rate,
        num_losses=num_losses,
        weight_decay=weight_decay,
        signal=signal,
        min_losses=min_losses,
        eps=eps,
    )
