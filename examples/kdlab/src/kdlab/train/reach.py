"""Which parameters each loss of a problem reaches, from the traced program."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import kdopt
from kdlab.losses.base import Batch
from kdlab.models.network import Network
from kdlab.train.problem import Problem


class Reach(NamedTuple):
    """Masks of the parameters that each loss reaches.

    Attributes:
        masks: One list of bools per loss, in the order of the leaves.
    """

    masks: tuple[list[bool], ...]

    def each(self, params: Any) -> tuple[Any, ...]:
        """Returns the mask of each loss, a tree like the parameters."""
        return tuple(self._like(params, mask) for mask in self.masks)

    def all(self, params: Any) -> Any:
        """Returns the mask of the parameters that all losses reach."""
        return reached_by_all(self.each(params))

    def _like(self, params: Any, mask: list[bool]) -> Any:
        return jax.tree.unflatten(jax.tree.structure(params), mask)


def reached_by_all(masks: tuple[Any, ...]) -> Any:
    """Returns the mask of the parameters that all losses reach.

    Args:
        masks: What :func:`kdopt.reachable` returns, a tree of bools for each loss.

    Examples:
        >>> reached_by_all(({"trunk": True, "head": True}, {"trunk": True, "head": 0}))
        {'head': False, 'trunk': True}
    """
    return jax.tree.map(lambda *flags: all(flags), *masks)


def trace_reach(
    problem: Problem,
    pupil: Network,
    teacher: Network | None,
    images: jax.ShapeDtypeStruct,
    num_classes: int,
) -> Reach:
    """Traces the losses of a batch, without running anything.

    Args:
        problem: The losses.
        pupil: Shapes of the pupil.
        teacher: The teacher.
        images: Shape of the images, ``[b, h, w, c]``.
        num_classes: Number of classes.
    """
    masks: list[tuple] = []

    def trace(pupil: Network, teacher: Any, images: jax.Array) -> None:
        batch = Batch(
            images=images,
            labels=jnp.zeros((len(images), num_classes)),
            weights=jnp.ones(len(images)),
            rest=pupil.rest,
            key=jax.random.key(0),
            progress=jnp.ones(()),
        )
        batch = problem.with_teacher(batch, teacher)
        found = kdopt.reachable(problem.losses_fn, has_aux=True)(pupil.params, batch)
        masks.extend(found)

    jax.eval_shape(trace, pupil, teacher, images)
    return Reach(tuple(jax.tree.leaves(mask) for mask in masks))
