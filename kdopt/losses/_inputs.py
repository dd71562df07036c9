"""Arguments of the losses: checked, and cleared where they do not count.

Every loss passes its arguments through here before any arithmetic.
"""

from typing import Any

import jax
import jax.numpy as jnp

from kdopt._dtypes import accumulator_dtype
from kdopt.losses._labels import are_soft
from kdopt.losses._reduce import clear_masked
from kdopt.losses._shapes import (
    VECTORS,
    Rows,
    as_array,
    check_classes,
    check_examples,
    check_logits,
    check_rank,
    check_same,
    check_weights,
    indices_of,
    show,
)


def logit_rows(
    student_logits: Rows,
    teacher_logits: Rows,
    sample_weights: Rows | None,
    *,
    names: tuple[str, str] = ("student_logits", "teacher_logits"),
    min_classes: int = 2,
    same_classes: bool = True,
    teacher_gradient: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Checks and prepares the logits of both networks.

    Args:
        student_logits: ``[..., c]``, of at least two axes.
        teacher_logits: ``[..., c]``.
        sample_weights: ``[...]``, or None.
        names: Names of both arguments in messages.
        min_classes: The smallest number of classes for which the loss is meaningful.
        same_classes: Whether the numbers of classes must agree.
        teacher_gradient: Whether gradients flow into the teacher's.

    Returns:
        Student, teacher and weights, at least float32; masked rows are 0.

    Raises:
        ValueError: If a shape is wrong.
    """
    student, teacher = map(as_array, names, (student_logits, teacher_logits))
    check_classes(names[0], student, min_classes)
    check_logits(names[1], teacher)
    if student.ndim != teacher.ndim:
        raise ValueError(
            f"{names[0]} and {names[1]} must have the same number of axes, got "
            f"{show(student)} and {show(teacher)}; pass both the same batch."
        )
    for axis in range(student.ndim - 1):
        check_examples(names, student, teacher, axis)
    least = min(student.shape[-1], teacher.shape[-1])
    if same_classes:
        check_same(
            names,
            student,
            teacher,
            -1,
            "the same number of classes",
            "score the same classes in the same order; if a vocabulary is only "
            f"padded, pass the common part, x[..., :{least}]",
        )
    return cleared_pair(
        student,
        teacher,
        sample_weights,
        axes=student.ndim - 1,
        teacher_gradient=teacher_gradient,
    )


def folded_rows(
    student_logits: Rows, teacher_logits: Rows, sample_weights: Rows | None
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Prepares logits like :func:`logit_rows`, and makes every position an example.

    For losses that compare the examples with one another.

    Returns:
        Student and teacher ``[b, c]``, and weights ``[b]``.
    """
    student, teacher, weights = logit_rows(
        student_logits, teacher_logits, sample_weights
    )
    student, teacher = (x.reshape(-1, x.shape[-1]) for x in (student, teacher))
    return student, teacher, None if weights is None else weights.reshape(-1)


def vector_rows(
    student: Rows,
    teacher: Rows,
    sample_weights: Rows | None,
    *,
    names: tuple[str, str] = ("student_features", "teacher_features"),
    axes: str | None = VECTORS,
    same_width: bool = False,
    teacher_gradient: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Prepares the features of both networks, like :func:`logit_rows` for logits.

    Args:
        student: ``[b, d]``, or of any rank.
        teacher: ``[b, d']``.
        sample_weights: ``[b]``, or None.
        names: Names of both arguments in messages.
        axes: Names of the axes; None for any number of them.
        same_width: Whether the widths must agree.
        teacher_gradient: Whether gradients flow into the teacher's.

    Returns:
        Student, teacher and weights, at least float32; masked rows are 0.

    Raises:
        ValueError: If a shape is wrong.
    """
    ours, theirs = as_array(names[0], student), as_array(names[1], teacher)
    for name, x in zip(names, (ours, theirs), strict=True):
        any_rank = " ".join(["b", *(f"d{i}" for i in range(1, max(x.ndim, 2)))])
        check_rank(name, x, axes or any_rank)
    check_examples(names, ours, theirs)
    if same_width:
        check_same(
            names,
            ours,
            theirs,
            1,
            "equal widths",
            "map the student's to the teacher's by a trained layer first",
        )
    return cleared_pair(ours, theirs, sample_weights, teacher_gradient=teacher_gradient)


def labelled_rows(
    labels: Rows,
    weights: jax.Array | None,
    num_classes: int,
    *rows: jax.Array,
    soft: bool = False,
    ignore_label: int | None = None,
) -> tuple[Any, ...]:
    """Checks labels, and masks and clears the rows whose label is not a class.

    The rule of all losses that take labels: an example whose index is outside
    ``[0, c)`` has weight 0.

    Args:
        labels: Class indices ``[...]``, or distributions ``[..., c]``.
        weights: Result of :func:`check_weights`.
        num_classes: :math:`c`.
        rows: Arrays ``[..., d]``, at least one.
        soft: Whether the loss accepts distributions.
        ignore_label: A class whose examples are also left out.

    Returns:
        The labels, the weights, and the arrays, whose masked rows are 0.

    Raises:
        ValueError: If the labels are neither kind, or there is not one per row.
    """
    labels = as_array("labels", labels)
    shape = rows[0].shape[:-1]
    is_soft = are_soft(labels, num_classes, len(shape))
    if labels.shape[: len(shape)] != shape:
        raise ValueError(
            f"labels must hold one label per example, {list(shape)}, got "
            f"{show(labels)}; pass the labels of the same batch."
        )
    if is_soft and not soft:
        raise ValueError(
            "this loss sets one class against the others: labels must be class indices "
            f"[b], got distributions {show(labels)}. For mixup or cutmix pass every "
            "example once for each of its labels, with their shares as sample_weights; "
            "for smoothed labels pass the original indices."
        )
    if not is_soft:
        labels = indices_of(labels)
        is_class = (labels >= 0) & (labels < num_classes)
        if ignore_label is not None:
            is_class &= labels != ignore_label
        if weights is None:
            weights = is_class.astype(accumulator_dtype(*rows))
        else:
            weights = jnp.where(is_class, weights, 0)
    return (
        clear_masked(labels, weights),
        weights,
        *(clear_masked(x, weights) for x in rows),
    )


def cleared_pair(
    student: jax.Array,
    teacher: jax.Array,
    sample_weights: Rows | None,
    *,
    axes: int = 1,
    teacher_gradient: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Casts both to at least float32, clears masked rows, and stops the teacher."""
    dtype = accumulator_dtype(student, teacher)
    weights = check_weights(sample_weights, student.shape[:axes], dtype)
    student, teacher = (
        clear_masked(x.astype(dtype), weights) for x in (student, teacher)
    )
    if not teacher_gradient:
        teacher = jax.lax.stop_gradient(teacher)
    return student, teacher, weights


def of_rows(temperature: jax.Array) -> jax.Array:
    """Reshapes a temperature to a factor of losses ``[...]``: ``[]`` or ``[...]``."""
    return temperature[..., 0] if temperature.ndim else temperature
