"""Scaling of losses to the magnitude of one of them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdopt._loss_weights import ValuesState
from kdopt._transform import check_num_losses
from kdopt._typing import PresentLike, Scalarizer, Values, Weights
from kdopt.scalarizers._values import from_values, one_per_loss


def _match(
    values: Values,
    *,
    shares: Weights,
    anchor: jax.Array,
    matched: jax.Array,
    eps: jax.Array,
    present: PresentLike = None,
) -> Weights:
    del present  # values and weights of absent losses are zeroed outside
    level = values[anchor]
    usable = matched & (values > 0) & (level > 0)
    ratios = level / jnp.where(usable, jnp.maximum(values, eps), 1)
    return shares * jnp.where(usable, ratios, 1)


class MagnitudeMatchState(ValuesState):
    """State of :func:`kdopt.magnitude_match`."""

    weights_fn = staticmethod(_match)


def magnitude_match_weights(
    values: Values,
    *,
    anchor: int = 0,
    shares: float | Sequence[float] | jax.Array | None = None,
    matched: Sequence[bool] | None = None,
    eps: float | jax.Array = 1e-8,
) -> Weights:
    r"""Returns weights that bring losses to a share of the anchor's magnitude.

    .. math:: w_a = s_a, \qquad w_i = s_i \frac{L_a}{\max(L_i, \varepsilon)}
        \;\; (i \text{ matched})

    so that :math:`w_i L_i = s_i L_a`.

    Args:
        values: Loss values, ``[k]``.
        anchor: Index a.
        shares: :math:`s`, a number or ``[k]``. By default 1 for the anchor and the
            losses that are not matched, and equal shares of 1 for those that are.
        matched: Which losses are scaled, K bools; by default all but the anchor. The
            others have the weight :math:`s_i`.
        eps: :math:`\varepsilon`.

    Returns:
        Weights, ``[k]``. The ratio is used only where both losses are positive;
        otherwise it is 1.

    Raises:
        ValueError: If there are not K shares or bools, or ``anchor`` is out of range.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import scalarizers
        >>> values = jnp.array([1.5, 0.4, 0.45])  # task, logits, features
        >>> weights = scalarizers.magnitude_match_weights(values)
        >>> print("{:.4f} {:.4f} {:.4f}".format(*weights))
        1.0000 1.8750 1.6667
    """
    k, dtype = len(values), values.dtype
    index, which, parts = _settings(anchor, matched, shares, k, dtype)
    floor = jnp.asarray(eps, dtype)
    return _match(values, shares=parts, anchor=index, matched=which, eps=floor)


def magnitude_match(
    *,
    num_losses: int = 2,
    anchor: int = 0,
    shares: float | Sequence[float] | jax.Array | None = None,
    matched: Sequence[bool] | None = None,
    eps: float | jax.Array = 1e-8,
) -> Scalarizer:
    r"""Scales losses to the magnitude of one of them, at every step.

    The usual way to balance distillation in industry: each loss counts by its share,
    whatever its scale. See :func:`kdopt.scalarizers.magnitude_match_weights` for the
    equation; up to the scale of the anchor it is :func:`kdopt.geometric_mean`.
    Depending on its options:

    * *task = logits + features*, both equally large: the defaults.
    * *(1 - a) task + a (logits + features of the size of the logits)*:
      ``anchor=1, matched=[False, False, True], shares=[1 - a, a, a]``.

    Args:
        num_losses: K.
        anchor: See :func:`kdopt.scalarizers.magnitude_match_weights`.
        shares: See :func:`kdopt.scalarizers.magnitude_match_weights`.
        matched: See :func:`kdopt.scalarizers.magnitude_match_weights`.
        eps: See :func:`kdopt.scalarizers.magnitude_match_weights`.

    Returns:
        A scalarizer; ``update`` needs ``values``. The weight of the anchor is 1 by
        default: keep the learning rate of that loss. As a loss vanishes its weight
        grows, up to the floor ``eps``, and its gradient keeps its size.

    Raises:
        ValueError: If there are not K shares or bools, or ``anchor`` is out of range.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> state = kdopt.magnitude_match(num_losses=3).init(jnp.zeros(2))
        >>> weights = kdopt.loss_weights(state, jnp.array([1.5, 0.4, 0.45]))
        >>> print("{:.4f} {:.4f} {:.4f}".format(*weights))
        1.0000 1.8750 1.6667

    References:
        NVIDIA Model-Optimizer a2fbac7, ``LogitsAndIntermediatesLossBalancer``;
        MaxText, pull request 4220
    """
    k = check_num_losses(num_losses)

    def start(dtype: jnp.dtype) -> tuple[Weights, dict, dict]:
        index, which, parts = _settings(anchor, matched, shares, k, dtype)
        settings = {"shares": parts, "anchor": index, "matched": which, "eps": eps}
        return parts, settings, {}

    start(jnp.zeros(()).dtype)  # the checks, before any gradient is seen
    return from_values(MagnitudeMatchState, start, num_losses=k)


def _settings(
    anchor: int,
    matched: Sequence[bool] | None,
    shares: float | Sequence[float] | jax.Array | None,
    k: int,
    dtype: jnp.dtype,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    if not 0 <= anchor < k:
        raise ValueError(
            f"anchor must be the index of one of {k} losses, got {anchor}."
        )
    which = [i != anchor for i in range(k)] if matched is None else list(matched)
    if len(which) != k or which[anchor]:
        raise ValueError(
            f"matched must hold one bool per loss, {k} of them, False for the anchor, "
            f"got {matched!r}."
        )
    equal = [1 / max(sum(which), 1) if on else 1.0 for on in which]
    given = equal if shares is None else shares
    return (
        jnp.asarray(anchor, jnp.int32),
        jnp.asarray(which, bool),
        one_per_loss(given, k, dtype, name="shares"),
    )
