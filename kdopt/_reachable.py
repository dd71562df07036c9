"""Which parameters each loss reaches, found without running anything."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdopt._typing import PerLossGrads


def reachable(
    losses_fn: Callable[..., Any], *, has_aux: bool = False
) -> Callable[..., PerLossGrads]:
    r"""Finds which parameters each loss reaches: where a gradient can flow.

    The counterpart of ``grad is None`` in PyTorch. A head that only one loss sees, a
    feature regressor, anything behind ``stop_gradient``: such a gradient is zero for
    every input, as the *structure* of the program shows. The pullback of each loss is
    traced, not run; a leaf is reached if its gradient depends on the cotangent of the
    loss.

    Args:
        losses_fn: ``losses_fn(params, *args, **kwargs)`` returns a tuple of K scalar
            losses; with ``has_aux`` a pair ``(losses, aux)``.
        has_aux: Whether the function returns auxiliary data.

    Returns:
        A function of the same arguments (arrays or ``jax.ShapeDtypeStruct``) that
        returns K trees of bools shaped like params, for ``reach=`` of :func:`kdopt.dot`
        and :func:`kdopt.streams`.

    Raises:
        ValueError: If the losses are not a tuple: the structure of an array does not
            tell its losses apart.

    Examples:
        >>> import jax.numpy as jnp
        >>> import kdopt
        >>> def losses_fn(params):
        ...     features = params["trunk"] ** 2
        ...     return jnp.sum(features * params["head"]), jnp.sum(features)
        >>> params = {"trunk": jnp.ones(2), "head": jnp.ones(2)}
        >>> task, distill = kdopt.reachable(losses_fn)(params)
        >>> print(task["head"], distill["head"], distill["trunk"])
        True False True
    """

    def wrapped(params: Any, *args: Any, **kwargs: Any) -> PerLossGrads:
        def losses(p: Any) -> Any:
            out = losses_fn(p, *args, **kwargs)
            out = out[0] if has_aux else out
            if not isinstance(out, (tuple, list)):
                raise ValueError(
                    "reachable needs losses_fn to return a tuple of scalars (or, with "
                    f"has_aux=True, a pair of that and aux), got {type(out).__name__}: "
                    "return (task, distill), not an array that stacks them."
                )
            return tuple(jnp.asarray(loss) for loss in out)

        shapes = jax.eval_shape(losses, params)

        def pull(p: Any, cotangents: tuple) -> Any:
            return jax.vjp(losses, p)[1](cotangents)[0]

        jaxpr = jax.make_jaxpr(pull)(params, shapes).jaxpr
        leaves, structure = jax.tree.flatten(params)
        masks = []
        for i in range(len(shapes)):
            inputs = [n == len(leaves) + i for n in range(len(jaxpr.invars))]
            masks.append(jax.tree.unflatten(structure, _depend(jaxpr, inputs)))
        return tuple(masks)

    return wrapped


def _depend(jaxpr: Any, inputs: Sequence[bool]) -> list[bool]:
    """Finds which outputs of a jaxpr depend on the marked inputs."""
    marked = {var for var, mark in zip(jaxpr.invars, inputs, strict=True) if mark}

    def is_marked(atom: Any) -> bool:
        return not hasattr(atom, "val") and atom in marked  # literals have a val

    for eqn in jaxpr.eqns:
        marks = [is_marked(atom) for atom in eqn.invars]
        if any(marks):
            outputs = zip(eqn.outvars, _outputs(eqn, marks), strict=True)
            marked |= {var for var, mark in outputs if mark}
    return [is_marked(atom) for atom in jaxpr.outvars]


def _outputs(eqn: Any, marks: list[bool]) -> list[bool]:
    """Finds which outputs of an equation depend on its marked inputs."""
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        return _scan(params, marks)
    if name == "cond" and not marks[0]:
        branches = [_depend(b.jaxpr, marks[1:]) for b in params["branches"]]
        return [any(column) for column in zip(*branches, strict=True)]
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = params.get(key)
        inner = getattr(inner, "jaxpr", inner)
        if hasattr(inner, "eqns") and len(inner.invars) == len(marks):
            return _depend(inner, marks)
    # Anything else mixes all of its inputs.
    return [True] * len(eqn.outvars)


def _scan(params: Any, marks: list[bool]) -> list[bool]:
    """Does the same for a loop, following its carries until nothing changes."""
    first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
    carry = marks[first:last]
    while True:
        outputs = _depend(
            params["jaxpr"].jaxpr, [*marks[:first], *carry, *marks[last:]]
        )
        grown = [a or b for a, b in zip(carry, outputs, strict=False)]
        if grown == carry:
            return [*carry, *outputs[len(carry) :]]
        carry = grown
