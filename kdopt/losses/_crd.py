"""Contrastive representation distillation, with its memory as explicit state."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kdopt._typing import Scalar
from kdopt.losses._inputs import vector_rows
from kdopt.losses._reduce import batch_mean, clear_masked, row_weights
from kdopt.losses._safe import unit
from kdopt.losses._shapes import (
    Rows,
    as_array,
    check_examples,
    check_rank,
    check_temperature,
    indices_of,
    show,
)
from kdopt.losses._sharding import einsum, gathered


class CrdState(NamedTuple):
    """Memory of :func:`crd`: a plain pytree of fixed shapes, easy to checkpoint.

    Attributes:
        student_memory: Running student embedding of every training example, ``[n, d]``.
        teacher_memory: The same for the teacher, ``[n, d]``.
        log_z: Logarithms of the normalisation constants of the student's and the
            teacher's scores, ``[2]``; ``-inf`` until the first batch fixes them.
        labels: Class of every training example, ``[n]``.
        order: The examples sorted by class, ``[n]``.
    """

    student_memory: Float[Array, "n d"]
    teacher_memory: Float[Array, "n d"]
    log_z: Float[Array, "2"]
    labels: Int[Array, " n"]
    order: Int[Array, " n"]


def crd_init(key: jax.Array, labels: Rows, *, dim: int = 128) -> CrdState:
    r"""Fills the memory of :func:`crd` with random embeddings.

    Args:
        key: A random key.
        labels: Class indices of the whole training set, ``[n]``. An example is
            identified by its position in it. A negative label is not a class and leaves
            its example out, even as a negative for others.
        dim: Width :math:`d` of the embeddings.

    Returns:
        The state; its memory is drawn from :math:`U(-s, s)` with
        :math:`s = \sqrt{3 / d}`, so that the mean squared length is 1.

    Raises:
        ValueError: If the labels are not integers ``[n]``.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> state = losses.crd_init(jax.random.key(0), jnp.array([0, 1, 1]), dim=4)
        >>> print(state.student_memory.shape, state.log_z)
        (3, 4) [-inf -inf]

    References:
        Tian, Krishnan and Isola, `Contrastive Representation Distillation
        <https://arxiv.org/abs/1910.10699>`_, ICLR 2020
    """
    labels = _as_indices("labels", labels)
    bound = (3 / dim) ** 0.5
    memories = jax.random.uniform(
        key, (2, len(labels), dim), jnp.float32, -bound, bound
    )
    return CrdState(
        student_memory=memories[0],
        teacher_memory=memories[1],
        log_z=jnp.full(2, -jnp.inf, jnp.float32),
        labels=labels,
        order=jnp.argsort(labels).astype(jnp.int32),
    )


def crd(
    student_embeddings: Rows,
    teacher_embeddings: Rows,
    indices: Rows,
    state: CrdState,
    key: jax.Array,
    *,
    num_negatives: int = 16384,
    temperature: float = 0.07,
    momentum: float = 0.5,
    eps: float = 1e-7,
    sample_weights: Rows | None = None,
    axis_name: str | None = None,
) -> tuple[Scalar, CrdState]:
    r"""Contrasts the two networks' embeddings of an example with other classes'.

    .. math::
        L = -\frac1B \sum_b \sum_{v \in \{s, t\}} \Big[
            \log \frac{P^v_{b0}}{P^v_{b0} + K/N + \epsilon}
            + \sum_{k=1}^{K} \log \frac{K/N}{P^v_{bk} + K/N + \epsilon} \Big], \qquad
        P^s_{bk} = \frac{1}{Z^s} \exp \frac{\langle v^s_b, m^t_{bk} \rangle}{T}

    with :math:`v` the embeddings scaled to length 1 and :math:`m_{b0}, \dots, m_{bK}`
    the memory of the example itself and of :math:`K` examples of other classes. The
    student is compared with the teacher's memory and the teacher with the student's.
    The memory then moves, :math:`m_{b0} \leftarrow \mu m_{b0} + (1 - \mu) v_b`, and is
    scaled back to length 1.

    Args:
        student_embeddings: ``[b, d]``, from a trained layer on the student's features.
        teacher_embeddings: ``[b, d]``, from a trained layer on the teacher's features.
            Gradients do flow into them: stop them at the features.
        indices: Positions of the examples in the training set, ``[b]``, without repeats
            among those not masked. An index outside the set leaves its example out.
        state: The result of :func:`crd_init` or of the last step.
        key: A random key, a new one for each step.
        num_negatives: :math:`K`, drawn with replacement.
        temperature: :math:`T`.
        momentum: :math:`\mu` of the memory.
        eps: :math:`\epsilon`.
        sample_weights: Weights of the examples, ``[b]``; 0 masks padding and keeps it
            out of the memory.
        axis_name: The mapped axis under ``shard_map`` or ``pmap``, where each replica
            holds its part of the batch and all hold the same state. The embeddings
            are then exchanged, so that all write the same memory; the loss is that of
            the replica. Under ``jit`` with a sharded batch leave it out.

    Returns:
        The mean loss, at least float32, and the new state, without gradient.

    Raises:
        ValueError: If the embeddings are not as wide as the memory, or a shape is
            wrong.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from kdopt import losses
        >>> key = jax.random.key(0)
        >>> state = losses.crd_init(key, jnp.arange(8) % 4, dim=2)
        >>> same = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> index = jnp.array([0, 5])
        >>> for _ in range(3):
        ...     loss, state = losses.crd(
        ...         same, same, index, state, key, num_negatives=4, temperature=1.0
        ...     )
        ...     print(f"{loss:.3f}")
        5.495
        4.698
        4.141

    References:
        Tian, Krishnan and Isola, `Contrastive Representation Distillation
        <https://arxiv.org/abs/1910.10699>`_, ICLR 2020

    Notes:
        The reference code (megvii-research/mdistiller a08d46f) draws negatives without
        replacement where there are enough. It gathers ``[b, K + 1, d]`` from the
        memory; here the scores of all ``n`` examples are one product ``[b, n]``, from
        which the drawn ones are read.
    """
    names = "student_embeddings", "teacher_embeddings"
    student, teacher, weights = vector_rows(
        student_embeddings,
        teacher_embeddings,
        sample_weights,
        names=names,
        same_width=True,
        teacher_gradient=True,
    )
    num_examples, dim = state.student_memory.shape
    if student.shape[1] != dim:
        raise ValueError(
            f"embeddings must be as wide as the memory, {dim}, got {student.shape[1]}; "
            "give crd_init the same dim."
        )
    indices = _as_indices("indices", indices)
    check_examples(("student_embeddings", "indices"), student, indices)
    if axis_name is not None:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    # Masked rows read the first example; rows without a class or position are masked.
    everywhere = gathered(indices)
    known = (everywhere >= 0) & (everywhere < num_examples)
    places = jnp.where(known, everywhere, 0)
    known &= state.labels[places] >= 0
    weights = jnp.where(known, row_weights(student, weights), 0)
    student, teacher = (unit(clear_masked(x, weights)) for x in (student, teacher))
    drawn = _draw(key, places, state, num_negatives)
    tau = check_temperature(temperature, student, weights)
    scores = [
        _scores(student, state.teacher_memory, drawn) / tau,
        _scores(teacher, state.student_memory, drawn) / tau,
    ]
    log_z = _normalisers(scores, weights, state, axis_name)
    per_sample = [
        _contrast(score - constant.astype(score.dtype), num_examples, eps)
        for score, constant in zip(scores, log_z, strict=True)
    ]
    loss = batch_mean(per_sample[0] + per_sample[1], weights)

    rows = [gathered(x, axis=None) for x in (places, student, teacher, weights)]
    rows = _exchange(jax.lax.stop_gradient(rows), axis_name)
    places, student, teacher, weights = rows
    # Masked rows aim past the end, where a scatter drops them.
    places = jnp.where(weights > 0, places, num_examples)
    return loss, state._replace(
        student_memory=_remember(state.student_memory, places, student, momentum),
        teacher_memory=_remember(state.teacher_memory, places, teacher, momentum),
        log_z=log_z,
    )


def _as_indices(name, value):
    indices = as_array(name, value)
    check_rank(name, indices, "n")
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ValueError(
            f"{name} must be integers, got {indices.dtype} {show(indices)}."
        )
    return indices_of(indices)


def _draw(key, places, state, num_negatives):
    """Draws each example itself, then others of other classes, ``[b, 1 + K]``."""
    labels = state.labels[places]
    ordered = state.labels[state.order]
    without_class = jnp.searchsorted(ordered, 0, side="left")
    start = jnp.searchsorted(ordered, labels, side="left")[:, None]
    size = jnp.searchsorted(ordered, labels, side="right")[:, None] - start
    shape = (len(places), num_negatives)
    # Uniform over the sorted examples, with those of the own class cut out.
    place = jax.random.randint(
        key, shape, without_class, len(ordered) - size, start.dtype
    )
    place = place + jnp.where(place >= start, size, 0)
    negatives = state.order[place]
    return jnp.concatenate([places[:, None].astype(negatives.dtype), negatives], 1)


def _scores(anchors, memory, drawn):
    memory = jax.lax.stop_gradient(memory).astype(anchors.dtype)
    products = gathered(einsum("bd,nd->bn", anchors, memory), axis=1)
    return jnp.take_along_axis(products, drawn, axis=1)


def _normalisers(scores, weights, state, axis_name):
    """Returns the state's normalisers, or this batch's if it is the first; ``[2]``."""
    # A masked row may hold anything.
    means = [
        jnp.where(weights > 0, jax.nn.logsumexp(s, axis=1) - jnp.log(s.shape[1]), 0)
        for s in jax.lax.stop_gradient(scores)
    ]
    *means, weights = _exchange((*means, weights), axis_name)
    fresh = jnp.stack([jax.nn.logsumexp(mean, b=weights) for mean in means])
    fresh += jnp.log(len(state.labels)) - jnp.log(jnp.sum(weights))
    fresh = jnp.where(jnp.sum(weights) > 0, fresh, -jnp.inf)
    return jnp.where(state.log_z > -jnp.inf, state.log_z, fresh.astype(jnp.float32))


def _contrast(log_p, num_examples, eps):
    """Computes the negative log-likelihood of column 0 against noise, ``[b]``."""
    # Before the first example there is no constant: such rows are masked anyway.
    log_p = jnp.where(jnp.isfinite(log_p), log_p, 0)
    log_noise = jnp.log((log_p.shape[1] - 1) / num_examples).astype(log_p.dtype)
    log_both = jnp.logaddexp(log_p, jnp.logaddexp(log_noise, jnp.log(eps)))
    positive = log_p[:, 0] - log_both[:, 0]
    return -positive - jnp.sum(log_noise - log_both[:, 1:], axis=1)


def _exchange(rows, axis_name):
    """Gathers the rows of all replicas on each of them."""
    if axis_name is None:
        return rows

    def gather(x):
        # A sum of slots, not all_gather: JAX knows that its result is the same
        # everywhere.
        slots = jnp.zeros((jax.lax.axis_size(axis_name), *x.shape), x.dtype)
        slots = slots.at[jax.lax.axis_index(axis_name)].set(x)
        return jax.lax.psum(slots, axis_name).reshape(-1, *x.shape[1:])

    return jax.tree.map(gather, rows)


def _remember(memory, places, embeddings, momentum):
    old = memory.at[places].get(mode="clip")
    new = unit(momentum * old + (1 - momentum) * embeddings.astype(memory.dtype))
    return memory.at[places].set(new, mode="drop")
