"""GradVac: turn gradients towards each other until they reach their usual angle."""

import jax
import jax.numpy as jnp

from kdopt._checks import check_range
from kdopt._keys import carry_key, check_key
from kdopt._linalg import dot, quadratic_form
from kdopt._simplex import unit_gram
from kdopt._transform import check_num_losses, from_gram
from kdopt._typing import Balancer, Gram, Weights

LARGEST_TARGET = 0.99
"""No multiple of one gradient, however large, turns another into its direction: the
multiple added grows without bound as the target goes to 1; at this target it is 7."""


def gradvac_weights(
    gram: Gram,
    targets: Gram,
    key: jax.Array | None = None,
    *,
    beta: float | jax.Array = 0.5,
) -> tuple[Weights, Gram]:
    r"""Returns the weights of the sum of vaccinated gradients, and the new targets.

    With :math:`\phi` the cosine of :math:`\hat g_i` and :math:`g_j`, and
    :math:`\hat\phi_{ij}` its running mean: where :math:`\phi < \hat\phi_{ij}`,

    .. math::
        \hat g_i \leftarrow \hat g_i + \frac{\lVert \hat g_i \rVert
            \big( \hat\phi \sqrt{1 - \phi^2} - \phi \sqrt{1 - \hat\phi^2} \big)}
            {\lVert g_j \rVert \sqrt{1 - \hat\phi^2}} \, g_j

    which makes the cosine :math:`\hat\phi`; and always
    :math:`\hat\phi_{ij} \leftarrow (1 - \beta) \hat\phi_{ij} + \beta \phi`. The update
    is :math:`\sum_i \hat g_i`.

    Args:
        gram: Gram matrix of the gradients, ``[k, k]``.
        targets: :math:`\hat\phi`, ``[k, k]``; zeros at first, which gives PCGrad.
            Targets are capped at 0.99: at 1 the step would be infinite.
        key: For the order of :math:`j`; not needed for two losses.
        beta: :math:`\beta` in [0, 1].

    Returns:
        Weights, ``[k]``, and targets, ``[k, k]``.

    Raises:
        ValueError: If there are more than two losses and no key.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> gram = jnp.array([[18.0, -22.0], [-22.0, 38.0]])
        >>> weights, targets = kdopt.gradvac_weights(gram, jnp.zeros((2, 2)))
        >>> print("{:.4f} {:.4f}".format(*weights), f"{targets[0, 1]:.4f}")
        2.2222 1.5789 -0.4206

    References:
        Wang et al., `Gradient Vaccine: Investigating and Improving Multi-task
        Optimization in Massively Multilingual Models
        <https://arxiv.org/abs/2010.05874>`_, ICLR 2021, Algorithm 1
    """
    k = len(gram)
    cosines, norms, active = unit_gram(gram)
    least = jnp.finfo(gram.dtype).eps
    rate = jnp.asarray(beta, gram.dtype)
    if k <= 2:
        orders = jnp.broadcast_to(jnp.arange(k), (k, k))
    else:
        keys = jax.random.split(check_key(key, "gradvac of more than two losses"), k)
        orders = jax.vmap(jax.random.permutation, in_axes=(0, None))(keys, k)

    def vaccinate(row: jax.Array, order: jax.Array, goals: Weights):
        def turn(carry: tuple[Weights, Weights], j: jax.Array):
            part, goals = carry
            length = jnp.sqrt(jnp.maximum(quadratic_form(cosines, part), 0))
            usable = (j != row) & active[row] & active[j] & (length > least)
            product = dot(cosines[j], part)
            phi = jnp.clip(product / jnp.where(usable, length, 1), -1, 1)
            goal = jnp.clip(goals[j], -LARGEST_TARGET, LARGEST_TARGET)
            ratio = jnp.sqrt((1 - phi**2) / (1 - goal**2))
            pull = jnp.where(usable & (phi < goal), length * (goal * ratio - phi), 0)
            moved = jnp.clip((1 - rate) * goals[j] + rate * phi, -1, 1)
            goals = goals.at[j].set(jnp.where(usable, moved, goals[j]))
            return (part.at[j].add(pull), goals), None

        start = (jnp.arange(k) == row).astype(gram.dtype)
        return jax.lax.scan(turn, (start, goals), order)[0]

    targets = targets.astype(gram.dtype)
    parts, targets = jax.vmap(vaccinate)(jnp.arange(k), orders, targets)
    return jnp.where(active, dot(norms, parts) / norms, 1), targets


def gradvac(
    *,
    num_losses: int = 2,
    beta: float | jax.Array = 0.5,
    key: jax.Array | None = None,
    axis_name: str | None = None,
) -> Balancer:
    r"""Balances by gradient vaccine (GradVac).

    Like PCGrad, but the goal is the usual angle of the pair instead of at most 90
    degrees, so that losses which normally agree are also drawn together.

    Args:
        num_losses: K.
        beta: Rate :math:`\beta` of the running mean of the cosines, in [0, 1].
        key: Random key for the order, kept in the state; needed for three losses or
            more.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer; see :func:`gradvac_weights` for the equation. Weights are at least 1
        as long as the targets are not negative, and 1 each where every pair meets its
        target: keep the learning rate of the plain sum. A zero gradient has weight 1.

    Raises:
        ValueError: If there are more than two losses and no key, or ``beta`` is
            outside [0, 1].

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.gradvac()
        >>> grads = (jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0]))
        >>> state = tx.init(jnp.zeros(3))
        >>> _, state = tx.update(grads, state)
        >>> _, state = tx.update(grads, state)
        >>> print(f"{state.loss_weights[0]:.4f} {state.loss_weights[1]:.4f}")
        1.8580 1.4064

    Notes:
        The targets start at 0, which makes the first step that of PCGrad. The paper has
        one target per layer; here there is one for all parameters. The rate 0.5 is that
        of the public re-implementations.
    """
    k = check_num_losses(num_losses)
    check_range("beta", beta, 0.0, 1.0)
    targets = jnp.zeros((k, k))
    if k <= 2:
        return from_gram(
            lambda gram, _, goals: gradvac_weights(gram, goals, beta=beta),
            k,
            initial_state=targets,
            axis_name=axis_name,
        )
    start_key, next_key = carry_key(key, "gradvac of more than two losses")

    def weights_fn(gram: Gram, _: None, state: tuple[Gram, jax.Array]):
        data, use = next_key(state[1])
        weights, goals = gradvac_weights(gram, state[0], use, beta=beta)
        return weights, (goals, data)

    return from_gram(
        weights_fn,
        k,
        initial_state=lambda params: (targets, start_key(params)),
        axis_name=axis_name,
    )
