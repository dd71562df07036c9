"""ReLoBRaLo: a smoothed softmax of relative progress, with a look back."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdopt._checks import check_range
from kdopt._keys import carry_key
from kdopt._transform import check_num_losses
from kdopt._typing import Mask, Scalarizer, Values, Weights
from kdopt.scalarizers._memory import from_memory


class RelobraloMemory(NamedTuple):
    """State that :func:`relobralo` carries between steps.

    Attributes:
        weights: Weights of the last step, ``[k]``.
        first: Values of the first step of each loss, ``[k]``.
        previous: Values of the last step of each loss, ``[k]``.
        seen: Which losses had a step, ``[k]``.
        key: Random key, as raw data; ``()`` without one.
    """

    weights: Weights
    first: Values
    previous: Values
    seen: jax.Array
    key: Any


def relobralo_weights(
    values: Values, before: Values, *, temperature: float | jax.Array = 1.0
) -> Weights:
    r"""Computes weights from the ratio of each loss to an earlier value.

    .. math:: w_i = K \, \mathrm{softmax}\Big( \frac{L_i}{T L'_i} \Big)

    Args:
        values: Losses :math:`L`, ``[k]``.
        before: Earlier losses :math:`L'`, ``[k]``; where 0 the ratio counts as 1.
        temperature: :math:`T > 0`: towards 0 the loss that fell least has all the
            weight.

    Returns:
        Positive weights of sum K, ``[k]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import scalarizers
        >>> values, before = jnp.array([1.0, 1.0]), jnp.array([2.0, 1.0])
        >>> weights = scalarizers.relobralo_weights(values, before)
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.7551 1.2449

    References:
        Bischof and Kraus, `Multi-Objective Loss Balancing for Physics-Informed Deep
        Learning <https://arxiv.org/abs/2110.09813>`_, 2021
    """
    some = before != 0
    ratios = jnp.where(some, values / jnp.where(some, before, 1), 1)
    scaled = ratios / jnp.asarray(temperature, values.dtype)
    return len(values) * jax.nn.softmax(scaled)


def relobralo(
    *,
    num_losses: int = 2,
    alpha: float | jax.Array = 0.999,
    rho: float | jax.Array = 0.999,
    temperature: float | jax.Array = 1.0,
    key: jax.Array | None = None,
) -> Scalarizer:
    r"""Balances by smoothed relative progress, with a look back (ReLoBRaLo).

    With :math:`\hat w(t; t')` the weights of
    :func:`kdopt.scalarizers.relobralo_weights` from the losses at t and those at t':

    .. math::
        w(t) = \alpha \big( \rho_t \, w(t - 1) + (1 - \rho_t) \, \hat w(t; 0) \big)
            + (1 - \alpha) \, \hat w(t; t - 1)

    Args:
        num_losses: K.
        alpha: :math:`\alpha` in [0, 1]: how slowly the weights change.
        rho: Expectation of :math:`\rho_t`, in [0, 1]: below 1 the progress since the
            first step counts too.
        temperature: See :func:`kdopt.scalarizers.relobralo_weights`.
        key: Random key, to draw :math:`\rho_t` of 0 or 1 as the paper does; without one
            it is its expectation.

    Returns:
        A scalarizer; ``update`` needs ``values``. Weights sum to K and start at 1. A
        loss that is not ``present`` does not affect the weights of the step.

    Raises:
        ValueError: If a number is out of its range or ``key`` is not a random key.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.relobralo(alpha=0.9, rho=1.0)
        >>> params = jnp.zeros(2)
        >>> state = tx.init(params)
        >>> for values in ((2.0, 1.0), (1.0, 1.0)):
        ...     _, state = tx.update(params, state, params, values=values)
        >>> print("{:.4f} {:.4f}".format(*kdopt.loss_weights(state)))
        0.9755 1.0245

    References:
        Bischof and Kraus, `Multi-Objective Loss Balancing for Physics-Informed Deep
        Learning <https://arxiv.org/abs/2110.09813>`_, 2021
    """
    k = check_num_losses(num_losses)
    check_range("alpha", alpha, 0.0, 1.0)
    check_range("rho", rho, 0.0, 1.0)
    check_range("temperature", temperature, 0.0, open_minimum=True)
    keys = None if key is None else carry_key(key, "relobralo")

    def initial_state(params: Any) -> RelobraloMemory:
        return RelobraloMemory(
            weights=jnp.ones(k),
            first=jnp.zeros(k),
            previous=jnp.zeros(k),
            seen=jnp.zeros(k, bool),
            key=() if keys is None else keys[0](params),
        )

    def step_fn(
        values: Values, memory: RelobraloMemory, present: Mask
    ) -> tuple[Weights, RelobraloMemory]:
        dtype = values.dtype
        slow, share, data = jnp.asarray(alpha, dtype), jnp.asarray(rho, dtype), ()
        if keys is not None:
            data, use = keys[1](memory.key)
            share = jax.random.bernoulli(use, share).astype(dtype)
        first = jnp.where(memory.seen, memory.first, values)
        # An absent loss counts as unchanged: a ratio of 1.
        last = jnp.where(memory.seen & present, memory.previous, values)
        since_start = relobralo_weights(
            values, jnp.where(present, first, values), temperature=temperature
        )
        since_last = relobralo_weights(values, last, temperature=temperature)
        kept = share * memory.weights + (1 - share) * since_start
        weights = slow * kept + (1 - slow) * since_last
        # The first step has nothing to compare with.
        weights = jnp.where(jnp.any(memory.seen), weights, memory.weights)
        weights = jnp.where(present, weights, memory.weights)
        return weights, RelobraloMemory(
            weights=weights,
            first=jnp.where(present, first, memory.first),
            previous=jnp.where(present, values, memory.previous),
            seen=memory.seen | present,
            key=data,
        )

    return from_memory(
        step_fn, num_losses=k, initial_weights=1.0, initial_state=initial_state
    )
