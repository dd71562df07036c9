"""Losses of a vocabulary projection, whose logits are never all in memory at once."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdopt._dtypes import accumulator_dtype
from kdopt.losses._reduce import Denominator, total_of
from kdopt.losses._shapes import Rows, as_array, check_positive, check_weights, show
from kdopt.losses._sharding import einsum, gathered


def linear_losses(
    losses_fn: Callable[..., Any],
    student: tuple[Rows, Rows],
    *rows: Rows,
    teacher: tuple[Rows, Rows] | None = None,
    sample_weights: Rows | None = None,
    denominator: Denominator = "mean",
    chunk_size: int = 128,
) -> Float[Array, " k"]:
    r"""Computes K losses on the logits of a linear head, a chunk of tokens at a time.

    .. math:: L_i = \sum_{C} \ell_i\big(H^s_C W^s, \, H^t_C W^t\big)

    A scan runs over the chunks :math:`C`, and its backward pass recomputes their
    logits, so that all logits ``[tokens, vocabulary]`` never exist at once. The K
    losses stay separate: each can be differentiated by itself, so any balancer works on
    them.

    Args:
        losses_fn: ``losses_fn(student_logits, teacher_logits, *rows, sample_weights=,
            denominator=)`` returns the K losses of a chunk; they are added up over the
            chunks. Pass both keywords on to every loss: the denominator is a number,
            that of the whole batch. Without a teacher there is no second argument.
        student: Hidden states :math:`H^s`, ``[..., t, d]``, and head :math:`W^s`,
            ``[d, c]``.
        rows: Arrays with one entry per token, ``[..., t, *]``: labels, or the stored
            logits of a teacher.
        teacher: Hidden states ``[..., t, d']`` and head ``[d', c']``; no gradient flows
            into them.
        sample_weights: Weights of the tokens, ``[..., t]``; 0 masks padding.
        denominator: What all the sums are divided by; see :mod:`kdopt.losses`. For a
            loss with its own denominator pass that, also a number, in ``losses_fn``
            instead.
        chunk_size: How many tokens have logits at a time. Only the axis ``t`` is
            divided, and the axes before it keep their sharding, so a chunk has at least
            one position of every row.

    Returns:
        The losses ``[k]``, at least float32.

    Raises:
        ValueError: If a shape is wrong, or ``losses_fn`` does not return K scalars.

    Examples:
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> def losses_fn(student, teacher, labels, **options):
        ...     task = losses.cross_entropy(student, labels, **options)
        ...     return task, losses.kd(student, teacher, temperature=1.0, **options)
        >>> hidden, head = jnp.eye(4), jnp.array([[1.0, 0.0], [0.0, 1.0]] * 2)
        >>> values = losses.linear_losses(
        ...     losses_fn,
        ...     (hidden, head),
        ...     jnp.array([0, 1, 1, 0]),
        ...     teacher=(hidden, 3 * head),
        ...     chunk_size=2,
        ... )
        >>> print(" ".join(f"{value:.4f}" for value in values))
        0.8133 0.1698

    Notes:
        The gradient of the head is summed over the chunks in float32 or wider, and cast
        to the dtype of the head at the end.
    """
    check_positive("chunk_size", chunk_size)
    projections = [_projection("student", student)]
    if teacher is not None:
        projections.append(jax.lax.stop_gradient(_projection("teacher", teacher)))
    shape = projections[0][0].shape[:-1]
    dtype = accumulator_dtype(*(x for pair in projections for x in pair))
    weights = check_weights(sample_weights, shape, dtype)
    weights = jnp.ones(shape, dtype) if weights is None else weights
    options = {"denominator": total_of(weights, denominator)}
    arrays = [as_array(f"rows[{i}]", row) for i, row in enumerate(rows)]
    names = ["teacher", *(f"rows[{i}]" for i in range(len(rows)))][teacher is None :]
    for name, x in zip(names, [p[0] for p in projections[1:]] + arrays, strict=True):
        if x.shape[: len(shape)] != shape:
            raise ValueError(
                f"{name} must hold an entry for each token, {list(shape)}, got "
                f"{show(x)}; pass the entries of the same batch."
            )
    hiddens = [hidden for hidden, _ in projections]
    # In float32 the sum of its gradient over the chunks keeps its digits.
    heads = [head.astype(dtype) for _, head in projections]
    narrow = [head.dtype for _, head in projections]
    size = max(1, min(shape[-1], chunk_size // math.prod(shape[:-1])))

    @jax.checkpoint
    def of_chunk(heads: Any, hiddens: Any, arrays: Any, weights: Any) -> jax.Array:
        logits = [
            _project(hidden, head.astype(kind), dtype)
            for hidden, head, kind in zip(hiddens, heads, narrow, strict=True)
        ]
        found = losses_fn(*logits, *arrays, sample_weights=weights, **options)
        return _stacked(found)

    chunks = jax.tree.map(
        lambda x: _divided(x, len(shape) - 1, size), (hiddens, arrays, weights)
    )
    first = jax.tree.map(lambda x: x[0], chunks)
    out = jax.eval_shape(of_chunk, heads, *first)
    values, _ = jax.lax.scan(
        lambda sums, chunk: (sums + of_chunk(heads, *chunk), None),
        jnp.zeros(out.shape, out.dtype),
        chunks,
    )
    return values


def _projection(name: str, pair: Any) -> tuple[jax.Array, jax.Array]:
    """Checks hidden states and the head that maps them to logits."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(
            f"{name} must be a pair (hidden, head), got {type(pair).__name__}."
        )
    hidden, head = (as_array(name, x) for x in pair)
    if hidden.ndim < 2 or head.ndim != 2 or hidden.shape[-1] != head.shape[0]:
        raise ValueError(
            f"{name} must be hidden states [..., t, d] and a head [d, c], got "
            f"{show(hidden)} and {show(head)}; an embedding [c, d] is a head when it "
            "is transposed."
        )
    return hidden, head


def _project(hidden: jax.Array, head: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Computes the logits of the hidden states, in the dtype of sums."""
    axes = "abcefghij"[: hidden.ndim - 1]
    return einsum(f"{axes}x,xy->{axes}y", hidden, head, dtype=dtype)


def _divided(x: jax.Array, axis: int, size: int) -> jax.Array:
    """Splits an axis into chunks, in front; pads the last with zeros of weight 0."""
    x = gathered(x, axis=axis)
    missing = -x.shape[axis] % size
    if missing:
        x = jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])
    x = x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)


def _stacked(losses: Any) -> jax.Array:
    """Stacks K scalars to an array."""
    if isinstance(losses, (tuple, list)) and losses:
        losses = [jnp.asarray(loss) for loss in losses]
        if all(loss.ndim == 0 for loss in losses):
            return jnp.stack(losses)
    shapes = jax.tree.map(jnp.shape, losses)
    raise ValueError(f"losses_fn must return a tuple of K scalar losses, got {shapes}.")
