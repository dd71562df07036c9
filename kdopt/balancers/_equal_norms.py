"""Gradients scaled to running means of equal length."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp

from kdopt._checks import (
    Preference,
    check_choice,
    check_preference,
    check_range,
    preference_array,
)
from kdopt._running import RunningMean, move_mean, start_mean
from kdopt._simplex import sum_to_one
from kdopt._transform import check_num_losses, from_gram
from kdopt._typing import Balancer, Gram, Weights

TargetRule: TypeAlias = Literal["task", "sum", "mean"]


def equal_norms_weights(
    norms: Weights,
    *,
    preference: Preference = None,
    target: float | jax.Array | TargetRule = 1.0,
    mix: float | jax.Array = 1.0,
) -> Weights:
    r"""Returns weights that give gradients of these norms the wanted ratios of length.

    .. math:: w_i = r \, \frac{p_i}{\sum_j p_j} \frac{T}{n_i} + (1 - r)

    Args:
        norms: :math:`n_i`, ``[k]``; a gradient of norm 0 has no scaled part.
        preference: Ratios :math:`p_i \ge 0` of the lengths, ``[k]``; equal by default.
        target: Total length :math:`T`: a number, or ``"task"``, :math:`K n_0`, so that
            at equal ratios all become as long as the task gradient; ``"sum"``,
            :math:`K \sum_j n_j`; or ``"mean"``, :math:`\sum_j n_j`.
        mix: :math:`r` in [0, 1]; below 1 it mixes in the raw gradients.

    Returns:
        Non-negative weights, ``[k]``.

    Raises:
        ValueError: If there are not K preferences, or ``target`` is unknown.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> print(kdopt.equal_norms_weights(jnp.array([5.0, 2.0])))
        [0.1  0.25]
    """
    k, active = len(norms), norms > 0
    total = _total_length(norms, target)
    ratios = sum_to_one(preference_array(preference, k, norms.dtype))
    scaled = jnp.where(active, ratios * total / jnp.where(active, norms, 1), 0)
    share = jnp.asarray(mix, norms.dtype)
    return share * scaled + (1 - share)


def _total_length(norms: Weights, target: float | jax.Array | str) -> jax.Array:
    if not isinstance(target, str):
        return jnp.asarray(target, norms.dtype)
    check_choice("target", target, get_args(TargetRule))
    if target == "task":
        # Without a task gradient the others get the length of their mean.
        count = jnp.maximum(jnp.sum(norms > 0), 1).astype(norms.dtype)
        others = jnp.sum(norms) / count
        return len(norms) * jnp.where(norms[0] > 0, norms[0], others)
    return jnp.sum(norms) * (len(norms) if target == "sum" else 1)


class EqualNormsMemory(NamedTuple):
    """State that :func:`equal_norms` carries: running means of the norms, ``[k]``."""

    norms: RunningMean


def equal_norms(
    *,
    num_losses: int = 2,
    preference: Sequence[float] | jax.Array | None = None,
    target: float | jax.Array | TargetRule = 1.0,
    decay: float | jax.Array = 0.999,
    mix: float | jax.Array = 1.0,
    axis_name: str | None = None,
) -> Balancer:
    r"""Balances by running means of the gradient norms, in ratios that you set.

    .. math:: n_i \leftarrow \beta n_i + (1 - \beta) \lVert g_i \rVert, \qquad
        u = \sum_i \Big( r \, \frac{p_i}{\sum_j p_j} \frac{T}{n_i} + 1 - r \Big) g_i

    where the norms have no bias from their start at zero. Losses may have any scale:
    only the share :math:`p_i` of the length counts that each gradient gets. Only norms
    are used, so gradients in conflict stay in conflict. Depending on its options it is

    * the balancer of EnCodec: the defaults, with :func:`kdopt.value_and_shared_grad` at
      the output of the decoder;
    * MetaBalance: ``target="task", decay=0.9, mix=0.7``, under
      :func:`kdopt.per_layer` for one norm per layer;
    * the weighting of the guide to physics-informed networks:
      ``target="sum", decay=0.9`` under ``kdopt.every(..., 1000)``.

    Args:
        num_losses: K.
        preference: See :func:`equal_norms_weights`.
        target: See :func:`equal_norms_weights`.
        decay: :math:`\beta` in [0, 1); 0 for the norms of this step.
        mix: See :func:`equal_norms_weights`.
        axis_name: Mesh axis over which the gradients are sharded, inside
            ``jax.shard_map``.

    Returns:
        A balancer. With a number as ``target`` the length of the update does not shrink
        as training converges: choose the learning rate as for normalised gradients. The
        mean of a zero gradient stays as it is.

    Raises:
        ValueError: If a number is out of its range, ``target`` unknown, or there are
            not K preferences.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> tx = kdopt.equal_norms(preference=[1.0, 3.0])
        >>> grads = (jnp.array([3.0, 0.0, 4.0]), jnp.array([-1.0, 2.0, 2.0]))
        >>> update, _ = tx.update(grads, tx.init(jnp.zeros(3)))
        >>> print("{:.4f} {:.4f} {:.4f}".format(*update))
        -0.1000 0.5000 0.7000

    References:
        Défossez et al., `High Fidelity Neural Audio Compression
        <https://arxiv.org/abs/2210.13438>`_, TMLR 2023 (loss balancer);
        He et al., `MetaBalance <https://arxiv.org/abs/2203.06801>`_, WWW 2022;
        Wang et al., `An Expert's Guide to Training Physics-informed Neural Networks
        <https://arxiv.org/abs/2308.08468>`_, 2023
    """
    k = check_num_losses(num_losses)
    check_preference(preference, k)
    check_range("target", target, 0.0, open_minimum=True)
    check_range("decay", decay, 0.0, 1.0, open_maximum=True)
    check_range("mix", mix, 0.0, 1.0)
    if isinstance(target, str):
        check_choice("target", target, get_args(TargetRule))

    def weights_fn(
        gram: Gram, _: None, memory: EqualNormsMemory
    ) -> tuple[Weights, EqualNormsMemory]:
        own = jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0))
        norms = move_mean(memory.norms, own, decay, own > 0)
        weights = equal_norms_weights(
            norms.value, preference=preference, target=target, mix=mix
        )
        return jnp.where(own > 0, weights, 0), EqualNormsMemory(norms)

    return from_gram(
        weights_fn,
        k,
        initial_state=EqualNormsMemory(start_mean(k)),
        axis_name=axis_name,
    )
