"""RLW: weights drawn at random at every step."""

from typing import Any, NamedTuple

import jax
import optax

from kdopt._dtypes import accumulator_dtype
from kdopt._keys import carry_key
from kdopt._transform import check_num_losses
from kdopt._typing import Scalarizer, Weights


class RandomWeightingState(NamedTuple):
    """State of :func:`random_weighting`.

    Attributes:
        loss_weights: Weights for the next backward pass, ``[k]``.
        key: Random key of the weights after those, as raw data.
    """

    loss_weights: Weights
    key: jax.Array


def random_weighting(*, num_losses: int = 2, key: jax.Array) -> Scalarizer:
    r"""Weights the losses at random (RLW), with one backward pass.

    .. math:: w = \mathrm{softmax}(z), \qquad z \sim \mathcal N(0, I)

    A baseline that is hard to beat: a balancer should at least do better than this.
    :func:`kdopt.random_weights` does the same with K gradients.

    Args:
        num_losses: K.
        key: Random key, kept in the state.

    Returns:
        A scalarizer; ``update`` needs no ``values``. Weights sum to one, with
        expectation 1 / K each.

    Raises:
        ValueError: If ``num_losses`` is not a positive int.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.random_weighting(key=jax.random.key(0))
        >>> params = jnp.zeros(2)
        >>> state = tx.init(params)
        >>> weights = kdopt.loss_weights(state)
        >>> print("{:.4f} {:.4f}".format(*weights))
        0.2982 0.7018

    References:
        Lin et al., `Reasonable Effectiveness of Random Weighting
        <https://arxiv.org/abs/2111.10603>`_, TMLR 2022, section 3
    """
    k = check_num_losses(num_losses)

    start_key, next_key = carry_key(key, "random_weighting")

    def draw(data: jax.Array, dtype: Any) -> RandomWeightingState:
        data, subkey = next_key(data)
        return RandomWeightingState(
            jax.nn.softmax(jax.random.normal(subkey, (k,), dtype)), data
        )

    def init_fn(params: optax.Params) -> RandomWeightingState:
        dtype = accumulator_dtype(*jax.tree.leaves(params))
        return draw(start_key(params), dtype)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, RandomWeightingState]:
        del params, extra_args
        return updates, draw(state.key, state.loss_weights.dtype)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
