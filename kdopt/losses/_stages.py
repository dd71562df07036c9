"""Feature maps of student and teacher, stage by stage, brought to one resolution."""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kdopt._dtypes import at_least_float32

Maps: TypeAlias = Sequence[Float[Array, "_ _ _ _"]]
"""One feature map a stage, each ``[b, h, w, c]``."""


def adaptive_avg_pool(
    x: Float[Array, "b _ _ c"], size: tuple[int, int]
) -> Float[Array, "b _ _ c"]:
    """Averages a map over cells that cover it evenly, whatever the sizes.

    Cell ``i`` of ``n`` covers positions ``floor(i h / n)`` to ``ceil((i + 1) h / n)``,
    the end excluded: cells overlap by one where ``n`` does not divide ``h``.

    Args:
        x: Map, ``[b, h, w, c]``.
        size: Height and width of the result.

    Returns:
        The pooled map, ``[b, *size, c]``.
    """
    for axis, n in zip((1, 2), size, strict=True):
        if x.shape[axis] != n:
            cells = jnp.asarray(_cells(x.shape[axis], n), x.dtype)
            x = jnp.moveaxis(
                jnp.tensordot(x, cells, (axis, 1), precision="highest"), -1, axis
            )
    return x


def paired_stages(
    student: Maps, teacher: Maps, *, same_channels: bool = False
) -> list[tuple[jax.Array, jax.Array]]:
    """Pairs the stages of two networks, the larger map pooled to the smaller.

    Args:
        student: Maps of the student.
        teacher: As many maps of the teacher; no gradient flows into them.
        same_channels: Whether the loss compares channel by channel.

    Returns:
        Pairs of maps of equal height and width, at least float32.

    Raises:
        ValueError: If there are no stages, if their numbers differ, or if their
            channels differ where they must not.
    """
    if len(student) != len(teacher) or not student:
        raise ValueError(
            f"student and teacher must have equally many stages, at least one, got "
            f"{len(student)} and {len(teacher)}; choose the stages to compare first."
        )
    pairs = []
    for stage, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
        if same_channels and ours.shape[-1] != theirs.shape[-1]:
            raise ValueError(
                f"maps of stage {stage} must have equal channels, got "
                f"{ours.shape[-1]} and {theirs.shape[-1]}; map the student's to the "
                "teacher's by a trained layer (a 1x1 convolution) first."
            )
        size = (
            min(ours.shape[1], theirs.shape[1]),
            min(ours.shape[2], theirs.shape[2]),
        )
        theirs = jax.lax.stop_gradient(at_least_float32(theirs))
        pairs.append(
            (
                adaptive_avg_pool(at_least_float32(ours), size),
                adaptive_avg_pool(theirs, size),
            )
        )
    return pairs


def _cells(length: int, n: int) -> np.ndarray:
    """The averaging matrix ``[n, length]`` of one axis."""
    cells = np.arange(n)[:, None]
    positions = np.arange(length)[None, :]
    inside = (positions >= cells * length // n) & (
        positions < -(-(cells + 1) * length // n)
    )
    return inside / inside.sum(axis=1, keepdims=True)
