"""Checks of the arguments of the losses by shape, shared by all losses.

Shapes are known during tracing, so the checks cost nothing when a function runs.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Rows: TypeAlias = ArrayLike | Sequence[Any]
"""A JAX or NumPy array with one example per row, or nested lists of numbers."""

Maps: TypeAlias = Iterable[ArrayLike]
"""One feature map per stage, each ``[b, h, w, c]``."""

VECTORS = "b d"

_ONE = "add the axis that is missing: x[None] for one example"
_FOLD = (
    "make every position an example: x.reshape(-1, x.shape[-1]), labels and "
    "sample_weights likewise"
)
ADVICE = {
    (VECTORS, 1): _ONE,
    (VECTORS, 3): f"average over the tokens, x.mean(1), or {_FOLD}",
    (VECTORS, 4): "average over the positions, x.mean((1, 2)), or use a loss on maps",
}
"""Advice for an array of one rank where another was expected."""


def as_array(name: str, value: Any) -> jax.Array:
    """Converts an argument to an array of real numbers.

    Raises:
        ValueError: If it is not one.
    """
    if isinstance(value, (list, tuple)) and any(np.ndim(x) > 1 for x in value):
        raise ValueError(
            f"{name} must be one array, got a {type(value).__name__} of {len(value)} "
            "arrays; call the loss on each of them."
        )
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{name} must be an array of numbers, got {type(value).__name__}."
        ) from error
    if jnp.issubdtype(array.dtype, jnp.complexfloating) or not (
        jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool
    ):
        raise ValueError(f"{name} must be real numbers, got {array.dtype}.")
    return array


def as_sequence(name: str, value: Any) -> tuple[Any, ...]:
    """Checks a sequence of arrays, such as one per stage.

    Raises:
        ValueError: If it is one array, which would be split into its rows.
    """
    if hasattr(value, "shape") or not isinstance(value, Iterable):
        got = f"one array {show(value)}" if hasattr(value, "shape") else repr(value)
        raise ValueError(
            f"{name} must be a list or tuple of arrays, got {got}; pass [x] for one."
        )
    return tuple(value)


def check_rank(name: str, x: jax.Array, axes: str, advice: str | None = None) -> None:
    """Checks the number of axes, and that none is empty.

    Args:
        name: Name of the argument.
        x: The argument.
        axes: Names of the axes, separated by spaces.
        advice: What to do if the rank is wrong; from the table of advice by default.

    Raises:
        ValueError: If the rank is wrong, or an axis has size 0.
    """
    expected = f"{name} must have shape [{', '.join(axes.split())}], got {show(x)}"
    if x.ndim != len(axes.split()):
        advice = advice or ADVICE.get((axes, x.ndim))
        raise ValueError(f"{expected}; {advice}." if advice else f"{expected}.")
    if x.size == 0:
        raise ValueError(f"{expected}; a mean over nothing is undefined.")


def check_same(
    names: tuple[str, str],
    x: jax.Array,
    y: jax.Array,
    axis: int,
    what: str,
    advice: str,
) -> None:
    """Checks that two arrays have the same size along an axis.

    Raises:
        ValueError: If they do not.
    """
    if x.shape[axis] != y.shape[axis]:
        raise ValueError(
            f"{names[0]} and {names[1]} must have {what}, got {x.shape[axis]} and "
            f"{y.shape[axis]} (shapes {show(x)} and {show(y)}); {advice}."
        )


def check_examples(
    names: tuple[str, str], x: jax.Array, y: jax.Array, axis: int = 0
) -> None:
    """Checks that two arrays hold the same number of examples, or of tokens.

    Raises:
        ValueError: If they do not.
    """
    check_same(
        names,
        x,
        y,
        axis,
        "the same number of tokens" if axis else "the same number of examples",
        "pass the same batch to both, row by row",
    )


def check_weights(
    sample_weights: Rows | None, shape: tuple[int, ...], dtype: jnp.dtype
) -> jax.Array | None:
    """Checks the weights of the examples, and counts a negative one as 0.

    Args:
        sample_weights: Weights, numbers or bools; or None.
        shape: Shape of the examples: ``[b]``, or ``[b, t]`` for tokens.
        dtype: Dtype of the loss.

    Returns:
        The weights, or None.

    Raises:
        ValueError: If there is not one per row.
    """
    if sample_weights is None:
        return None
    weights = as_array("sample_weights", sample_weights)
    if weights.shape != shape:
        rows = "[b]" if len(shape) == 1 else "[...]"
        if weights.shape == (*shape, 1):
            advice = "squeeze it: sample_weights[..., 0]"
        elif weights.ndim == 0:
            advice = "to weight a loss, multiply it by a number"
        elif weights.shape == shape[: weights.ndim]:
            advice = "repeat it along the missing axes with jnp.broadcast_to"
        else:
            advice = "weights are for examples or tokens, not classes or features"
        raise ValueError(
            f"sample_weights must have shape {rows} = {list(shape)}, got "
            f"{show(weights)}; {advice}."
        )
    weights = weights.astype(dtype)
    # NaN stays: it is a fault, and should show in the loss.
    return jnp.where(weights < 0, 0, weights)


def check_positive(name: str, value: ArrayLike) -> None:
    """Checks that a Python or NumPy number is positive; JAX arrays pass unchecked.

    Raises:
        ValueError: If it is not positive.
    """
    known = isinstance(value, (int, float, np.ndarray, np.generic))
    if known and not np.all(np.asarray(value) > 0):
        raise ValueError(f"{name} must be positive, got {value}.")


def check_temperature(
    value: ArrayLike,
    rows: jax.Array,
    weights: jax.Array | None,
    name: str = "temperature",
) -> jax.Array:
    """Checks a temperature: one for all examples, ``[]``, or for each, ``[..., 1]``.

    Args:
        value: The temperature.
        rows: What it divides, ``[..., c]``.
        weights: Result of :func:`check_weights`.
        name: Name of the argument.

    Returns:
        The temperature, in the dtype of the rows; 1 in masked rows.

    Raises:
        ValueError: If the shape is wrong, or a known number is not positive.
    """
    check_positive(name, value)
    temperature = as_array(name, value)
    shape = (*rows.shape[:-1], 1)
    if temperature.shape not in ((), shape):
        raise ValueError(
            f"{name} must be one number or have shape [..., 1] = {list(shape)}, got "
            f"{show(temperature)}."
        )
    temperature = temperature.astype(rows.dtype)
    if temperature.ndim and weights is not None:
        return jnp.where(weights[..., None] > 0, temperature, 1)
    return temperature


def check_denominator(value: ArrayLike | Literal["mean", "count"]) -> None:
    """Checks what the sum over the examples is divided by.

    Raises:
        ValueError: If it is an unknown word, not a single number, or not positive.
    """
    if isinstance(value, str):
        if value not in ("mean", "count"):
            raise ValueError(
                f"denominator must be 'mean', 'count' or a number, got {value!r}."
            )
        return
    check_positive("denominator", value)
    number = as_array("denominator", value)
    if number.ndim:
        raise ValueError(
            f"denominator must be one number, got {show(number)}; pass each "
            "loss its own."
        )


def check_logits(name: str, logits: jax.Array) -> None:
    """Checks that logits have the shape ``[..., c]``, of at least two axes.

    Raises:
        ValueError: If they have fewer axes, or one of size 0.
    """
    expected = f"{name} must have shape [..., c], got {show(logits)}"
    if logits.ndim < 2:
        raise ValueError(
            f"{expected}; {_ONE}; for one yes-or-no output per example use binary_kd "
            "with x[:, None]."
        )
    if logits.size == 0:
        raise ValueError(f"{expected}; a mean over nothing is undefined.")


def check_classes(name: str, logits: jax.Array, min_classes: int = 2) -> None:
    """Checks logits ``[..., c]``, and that there are enough classes.

    Raises:
        ValueError: If there are too few axes or classes.
    """
    check_logits(name, logits)
    if logits.shape[-1] < min_classes:
        raise ValueError(
            f"{name} must have at least {min_classes} classes, got {show(logits)}: a "
            "softmax over one class is 1 whatever its logit; for yes-or-no outputs use "
            "binary_kd or binary_cross_entropy."
        )


def indices_of(labels: jax.Array) -> jax.Array:
    """Widens integers (or bools) so that they can be compared with any count."""
    return labels if labels.dtype.itemsize >= 4 else labels.astype(jnp.int32)


def show(x: jax.Array) -> str:
    """Formats a shape as in the documentation."""
    return f"[{', '.join(map(str, x.shape))}]"
