"""Losses and gradients of one step, with gradient accumulation.

A batch that is too large for the memory is divided into micro-batches. Losses and
per-loss gradients of the batch are means over the micro-batches, weighted by their
sample weights; the balancer sees those of the whole batch. This is exact for losses
that are means over examples and networks without BatchNorm, whose statistics are those
of a micro-batch.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import kdopt
from kdlab.losses.base import Batch
from kdlab.train.methods import Plan
from kdlab.train.problem import Problem


class Gradients(NamedTuple):
    """Losses and gradients of one batch.

    Attributes:
        values: Loss values, ``[k]``.
        rest: Non-trainable state of the pupil.
        grads: One tree, or a tuple of one tree per loss: the input of ``plan.tx``.
        balancer: State of the balancer at the logits.
        weights: Weights of the losses, if they are known before ``plan.tx`` is applied.
    """

    values: jax.Array
    rest: Any
    grads: Any
    balancer: Any
    weights: jax.Array | None


def compute_gradients(
    problem: Problem, plan: Plan, state: Any, parts: list[Batch]
) -> Gradients:
    """Differentiates the losses in the way that the plan asks for.

    Args:
        problem: The losses.
        plan: How the gradients are combined.
        state: The state before the step.
        parts: Micro-batches, see :func:`split_batch`.
    """
    params = problem.layout.replicate_inside(state.params)
    if plan.balancer is not None:
        return _shared(problem, plan, params, state.balancer, parts)
    if plan.weights is None:
        exact = kdopt.value_and_grads(problem.losses_fn, has_aux=True)
        values, rest, grads = _mean(exact, params, parts)
        return Gradients(values, rest, grads, state.balancer, None)
    used_at, opt_state = plan.weights, state.opt_state
    weighted = kdopt.value_and_weighted_grad(problem.losses_fn, has_aux=True)

    def weights(values: jax.Array) -> jax.Array:
        return used_at(opt_state, values)

    if len(parts) > 1:
        # The weights are those of the whole batch. If they do not depend on the
        # values, the compiler removes this forward pass.
        used = weights(_values(problem, params, parts))
        weights = lambda _: used  # noqa: E731
    values, rest, grads = _mean(
        lambda p, part: weighted(p, part, weights=weights), params, parts
    )
    return Gradients(values, rest, grads, state.balancer, used_at(opt_state, values))


def split_batch(
    problem: Problem, batch: Batch, teacher: Any, count: int
) -> list[Batch]:
    """Divides a batch into micro-batches and adds the teacher's outputs to each.

    Args:
        problem: The losses.
        batch: A batch from :meth:`Problem.load` without a teacher.
        teacher: A network, or None.
        count: Number of micro-batches; must divide the batch size.

    Returns:
        Micro-batches; ``share`` is the fraction of all sample weight in each.
    """
    # Positive: a batch is never empty.
    total = jnp.sum(batch.weights)
    parts = []
    for i in range(count):
        part = batch
        if count > 1:
            # Every count-th row, so that each device divides its own rows.
            names = ("images", "labels", "weights", "indices")
            rows = {
                name: problem.layout.shard_rows(getattr(batch, name)[i::count])
                for name in names
            }
            weight = jnp.sum(rows["weights"])
            # A micro-batch of padding alone has share 0, so its means do not matter.
            rows["weights"] = jnp.where(weight > 0, rows["weights"], 1)
            key = jax.random.fold_in(batch.key, i)
            part = batch._replace(**rows, key=key, share=weight / total)
        parts.append(problem.with_teacher(part, teacher))
    return parts


def _mean(grads_fn: Any, params: Any, parts: list[Batch]) -> tuple[Any, Any, Any]:
    """Averages values and gradients over micro-batches, processed in sequence."""
    (values, rest), grads = grads_fn(params, parts[0])
    if len(parts) == 1:
        return values, rest, grads
    total = _scaled(parts[0], (values, grads))
    for part in parts[1:]:
        # In sequence; otherwise the compiler may keep all activations at once.
        params, total = jax.lax.optimization_barrier((params, total))
        (values, rest), grads = grads_fn(params, part._replace(rest=rest))
        total = jax.tree.map(jnp.add, total, _scaled(part, (values, grads)))
    return total[0], rest, total[1]


def _scaled(part: Batch, tree: Any) -> Any:
    return jax.tree.map(lambda x: (part.share * x).astype(x.dtype), tree)


def _values(problem: Problem, params: Any, parts: list[Batch]) -> jax.Array:
    rest, total = parts[0].rest, []
    for part in parts:
        values, rest = problem.losses_fn(params, part._replace(rest=rest))
        total.append(part.share * jnp.stack(values))
    return jnp.sum(jnp.stack(total), 0)


def _shared(
    problem: Problem, plan: Plan, params: Any, state: Any, parts: list[Batch]
) -> Gradients:
    """Balances at the representation of the whole batch, which is kept in memory."""
    balancer: Any = plan.balancer
    encode, head = problem.encode, problem.head
    args: Any = parts[0]
    if len(parts) > 1:
        args = parts

        def encode(params: Any, parts: list[Batch]) -> tuple[list, Any]:
            rest, shared = parts[0].rest, []
            for part in parts:
                # Activations are recomputed in the backward pass.
                again = jax.checkpoint(problem.encode)
                one, rest = again(params, part._replace(rest=rest))
                shared.append(one)
            return shared, rest

        def head(params: Any, shared: list, parts: list[Batch]) -> tuple:
            values = [
                _scaled(part, problem.head(params, one, part))
                for one, part in zip(shared, parts, strict=True)
            ]
            return tuple(sum(column) for column in zip(*values, strict=True))

    grads_fn = kdopt.value_and_shared_grad(
        encode, head, balancer, has_aux=True, weigh_heads=plan.weigh_heads
    )
    (values, rest), grads, state = grads_fn(params, args, state=state)
    return Gradients(values, rest, grads, state, kdopt.loss_weights(state))
