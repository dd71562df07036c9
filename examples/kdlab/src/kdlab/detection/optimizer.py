"""The optimiser of ViDT: AdamW after clipping, with its schedule and its exceptions."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

_UNDECAYED = ("det_token", "det_pos_embed")


def make_schedule(
    rate: float,
    min_rate: float,
    steps: int,
    *,
    warmup: int = 0,
    epoch: int | None = None,
) -> optax.Schedule:
    r"""Makes a cosine from the full rate to the least.

    .. math::
        \gamma(t) = \gamma_{min} + \frac{\gamma - \gamma_{min}}{2} (1 + \cos \pi t)

    Args:
        rate: The full rate.
        min_rate: The least rate.
        steps: Number of steps.
        warmup: Steps in which the rate rises to the full one before the cosine.
        epoch: Steps of an epoch: the rate then falls after every epoch but the first,
            as ViDT's does, which advances its schedule late. None: at every step.

    Returns:
        A function from the number of completed steps to the rate.

    Examples:
        >>> rate = make_schedule(1e-4, 1e-7, 50 * 10, epoch=10)
        >>> print(*(f"{rate(10 * e):.3g}" for e in (0, 1, 10, 25, 49)))
        0.0001 0.0001 9.22e-05 5.32e-05 4.94e-07
    """
    total = steps - warmup if epoch is None else steps // epoch
    cosine = optax.cosine_decay_schedule(rate, max(total, 1), min_rate / rate)

    def schedule(count: Any) -> jax.typing.ArrayLike:
        count = jnp.asarray(count)
        done = count - warmup if epoch is None else count // epoch - 1
        full = cosine(jnp.maximum(done, 0))
        return full * jnp.minimum((count + 1) / max(warmup, 1), 1)

    return schedule


def make_optimizer(
    schedule: optax.Schedule, *, weight_decay: float, clip: float
) -> optax.GradientTransformation:
    """Makes the optimiser of the combined gradient.

    Args:
        schedule: The rate.
        weight_decay: Decay of all parameters outside the body, and of those in it with
            two axes or more, except the detection tokens and their positions.
        clip: Maximum norm of the gradient over all parameters.
    """
    adamw = optax.adamw(schedule, weight_decay=weight_decay, mask=decayed)
    return optax.chain(optax.clip_by_global_norm(clip), adamw)


def decayed(params: Any) -> Any:
    """Returns which parameters decay, a tree of bools like params."""

    def decays(path: tuple, leaf: Any) -> bool:
        names = [str(getattr(key, "key", key)) for key in path]
        if any(name in names for name in _UNDECAYED):
            return False
        return "backbone" not in names or jnp.ndim(leaf) > 1

    return jax.tree.map_with_path(decays, params)
