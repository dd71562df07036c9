"""Products of a traced program that a device may round to fewer digits."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST


def loose_products(fn: Callable, *args: Any) -> list[str]:
    """The products and convolutions of floats without the highest precision.

    Args:
        fn: Any function that JAX can trace.
        *args: Arrays, shapes, or pytrees of them.
    """
    return [
        f"{eqn.primitive.name} of {', '.join(str(var.aval) for var in eqn.invars)}"
        for eqn in _equations(jax.make_jaxpr(fn)(*args).jaxpr)
        if eqn.primitive.name in ("dot_general", "conv_general_dilated")
        and jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.inexact)
        and eqn.params["precision"] not in (HIGHEST, (HIGHEST, HIGHEST))
    ]


def _equations(jaxpr: Any) -> Iterator[Any]:
    """All equations, those of jits, loops, branches and solvers inside included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in _jaxprs(list(eqn.params.values())):
            yield from _equations(inner)


def _jaxprs(param: Any) -> Iterator[Any]:
    param = getattr(param, "jaxpr", param)
    if hasattr(param, "eqns"):
        yield param
    elif isinstance(param, (tuple, list)):
        for part in param:
            yield from _jaxprs(part)
