"""Feature maps of student and teacher, stage by stage, at one resolution."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from kdopt.losses._inputs import cleared_pair
from kdopt.losses._shapes import (
    Maps,
    Rows,
    as_array,
    as_sequence,
    check_examples,
    check_rank,
    check_same,
    show,
)
from kdopt.losses._sharding import einsum


def adaptive_avg_pool(
    x: Float[Array, "b _ _ c"], size: tuple[int, int]
) -> Float[Array, "b _ _ c"]:
    """Averages a map over cells that cover it evenly, whatever the sizes.

    Cell ``i`` of ``n`` covers positions ``floor(i h / n)`` to ``ceil((i + 1) h / n)``,
    end excluded: cells overlap by one if ``n`` does not divide ``h``.

    Args:
        x: Map, ``[b, h, w, c]``.
        size: Height and width of the result.

    Returns:
        The pooled map, ``[b, *size, c]``.
    """
    for axis, n in zip((1, 2), size, strict=True):
        if x.shape[axis] != n:
            cells = jnp.asarray(_cells(x.shape[axis], n), x.dtype)
            subscripts = "bhwc,nh->bnwc" if axis == 1 else "bhwc,nw->bhnc"
            x = einsum(subscripts, x, cells)
    return x


def paired_stages(
    student: Maps,
    teacher: Maps,
    sample_weights: Rows | None = None,
    *,
    names: tuple[str, str] = ("student_maps", "teacher_maps"),
    same_channels: bool = False,
    tokens: bool = False,
) -> tuple[list[tuple[jax.Array, jax.Array]], jax.Array | None]:
    """Pairs the stages of two networks, the larger map pooled to the smaller.

    Args:
        student: Maps of the student.
        teacher: The same number of maps of the teacher; no gradient flows into them.
        sample_weights: Weights of the examples, ``[b]``, or None.
        names: Names of both arguments in messages.
        same_channels: Whether the loss compares channel by channel.
        tokens: Whether the loss treats tokens ``[b, t, d]`` as maps of width 1.

    Returns:
        Pairs of maps of equal height and width, at least float32, whose masked rows
        are 0; and the weights.

    Raises:
        ValueError: If there are no stages, if their numbers differ, or if a shape is
            wrong.
    """
    student, teacher = as_sequence(names[0], student), as_sequence(names[1], teacher)
    if len(student) != len(teacher) or not student:
        raise ValueError(
            f"{names[0]} and {names[1]} must have the same number of stages, at least "
            f"one, got {len(student)} and {len(teacher)}; choose the stages to compare "
            "first."
        )
    pairs, weights = [], None
    for stage, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
        *pair, weights = paired_maps(
            ours,
            theirs,
            sample_weights,
            names=(f"{names[0]} of stage {stage}", f"{names[1]} of stage {stage}"),
            same_channels=same_channels,
            tokens=tokens,
        )
        first = f"{names[0]} of stage 0"
        check_examples(
            (first, f"{names[0]} of stage {stage}"),
            as_array(first, student[0]),
            as_array(first, ours),
        )
        pairs.append(tuple(pair))
    return pairs, weights


def paired_maps(
    student: Rows,
    teacher: Rows,
    sample_weights: Rows | None,
    *,
    names: tuple[str, str] = ("student_map", "teacher_map"),
    same_channels: bool = False,
    tokens: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Does for one stage what :func:`paired_stages` does for all."""
    ours, theirs = (
        _as_map(name, x, tokens)
        for name, x in zip(names, (student, teacher), strict=True)
    )
    check_examples(names, ours, theirs)
    if same_channels:
        check_same(
            names,
            ours,
            theirs,
            -1,
            "the same number of channels",
            "map the student's to the teacher's by a trained layer (a 1x1 convolution) "
            "first",
        )
    if ours.ndim != theirs.ndim:
        raise ValueError(
            f"{names[0]} and {names[1]} must both be maps or both tokens, got "
            f"{show(ours)} and {show(theirs)}; put the tokens of the patches on their "
            "grid, x.reshape(b, h, w, d), without the class token."
        )
    if ours.ndim == 3:
        check_same(
            names,
            ours,
            theirs,
            1,
            "the same number of tokens",
            "put the tokens of the patches on their grid, x.reshape(b, h, w, d), "
            "without the class token: the larger grid is then averaged down to the "
            "smaller",
        )
        ours, theirs = ours[:, :, None], theirs[:, :, None]
    ours, theirs, weights = cleared_pair(ours, theirs, sample_weights)
    size = (
        min(ours.shape[1], theirs.shape[1]),
        min(ours.shape[2], theirs.shape[2]),
    )
    return adaptive_avg_pool(ours, size), adaptive_avg_pool(theirs, size), weights


def per_channel(
    name: str, values: Iterable[ArrayLike], pairs: list[tuple[jax.Array, jax.Array]]
) -> list[jax.Array]:
    """Checks one number per channel for every stage.

    Args:
        name: Name of the argument.
        values: Arrays ``[c]``, one per stage.
        pairs: Result of :func:`paired_stages`.

    Returns:
        The arrays, ``[1, 1, 1, c]``, in the dtype of the maps.

    Raises:
        ValueError: If their number or a shape is wrong.
    """
    values = as_sequence(name, values)
    if len(values) != len(pairs):
        raise ValueError(
            f"{name} must hold one array per stage, got {len(values)} for {len(pairs)} "
            "stages."
        )
    arrays = []
    for stage, (value, (x, _)) in enumerate(zip(values, pairs, strict=True)):
        array = as_array(f"{name} of stage {stage}", value)
        if array.shape != x.shape[-1:]:
            raise ValueError(
                f"{name} of stage {stage} must have shape [c] = [{x.shape[-1]}], one "
                f"number per channel, got {show(array)}."
            )
        arrays.append(array.astype(x.dtype)[None, None, None])
    return arrays


def _as_map(name, x, tokens):
    """Checks an array ``[b, h, w, c]``, or ``[b, t, d]`` where that is allowed."""
    x = as_array(name, x)
    if x.ndim == 3 and tokens:
        check_rank(name, x, "b t d")
        return x
    advice = {
        2: "pass vectors as maps of one position: x[:, None, None]",
        3: "put patch tokens on their grid: x.reshape(b, h, w, d), without the "
        "class token",
        5: "merge two axes of a volume: x.reshape(b, d * h, w, c)",
    }
    check_rank(name, x, "b h w c", advice.get(x.ndim))
    return x


def _cells(length: int, n: int) -> np.ndarray:
    """Returns the averaging matrix ``[n, length]`` of one axis."""
    cells = np.arange(n)[:, None]
    positions = np.arange(length)[None, :]
    inside = (positions >= cells * length // n) & (
        positions < -(-(cells + 1) * length // n)
    )
    return inside / inside.sum(axis=1, keepdims=True)
