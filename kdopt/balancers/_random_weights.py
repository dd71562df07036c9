"""Random loss weighting: a baseline that is hard to beat."""

import jax

from kdopt._keys import carry_key
from kdopt._transform import check_num_losses, from_gram
from kdopt._typing import Balancer, Gram, Weights


def random_weights(
    *,
    num_losses: int = 2,
    key: jax.Array,
    axis_name: str | None = None,
) -> Balancer:
    r"""Combines the gradients with weights drawn at random at each step (RLW).

    .. math:: w = \mathrm{softmax}(z), \qquad z \sim \mathcal N(0, I)

    Args:
        num_losses: K.
        key: Random key, kept in the state.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer. Weights are positive and sum to one.

    Raises:
        ValueError: If there is no key.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.random_weights(key=jax.random.key(0))
        >>> grads = (jnp.array([10.0]), jnp.array([20.0]))
        >>> _, state = tx.update(grads, tx.init(jnp.zeros(1)))
        >>> print(f"{jnp.sum(state.loss_weights):.2f}")
        1.00

    References:
        Lin et al., `Reasonable Effectiveness of Random Weighting: A Litmus Test for
        Multi-Task Learning <https://arxiv.org/abs/2111.10603>`_, TMLR 2022
    """
    k = check_num_losses(num_losses)
    start_key, next_key = carry_key(key, "random_weights")

    def weights_fn(gram: Gram, _: None, data: jax.Array) -> tuple[Weights, jax.Array]:
        data, use = next_key(data)
        return jax.nn.softmax(jax.random.normal(use, (k,), gram.dtype)), data

    return from_gram(weights_fn, k, initial_state=start_key, axis_name=axis_name)
