"""Finds products at less than full precision in a traced program.

At the default precision a float32 product uses TF32 on a GPU and bfloat16 on a TPU,
which the numbers of a test on a CPU would not show.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core

PRODUCTS = ("dot_general", "ragged_dot_general", "conv_general_dilated")


def loose_products(fn: Callable[..., Any], *args: Any) -> list[str]:
    """Lists the floating products of a function that are not at the highest precision.

    The whole program is searched: branches and bodies of loops, jitted functions, and
    derivatives if ``fn`` takes them.

    Args:
        fn: A function that can be traced.
        args: Its arguments, or ``jax.ShapeDtypeStruct`` in their place.

    Returns:
        One line per product, empty if there is none.
    """
    return [
        f"{equation.primitive.name} of {_operands(equation)} at precision "
        f"{equation.params['precision']}"
        for equation in _equations(jax.make_jaxpr(fn)(*args).jaxpr)
        if equation.primitive.name in PRODUCTS and _is_loose(equation)
    ]


def products(fn: Callable[..., Any], *args: Any) -> int:
    """Counts the products of a function, so that a test can check that it saw some."""
    return sum(
        equation.primitive.name in PRODUCTS
        for equation in _equations(jax.make_jaxpr(fn)(*args).jaxpr)
    )


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values())):
            if isinstance(inner, core.ClosedJaxpr):
                yield from _equations(inner.jaxpr)
            elif isinstance(inner, core.Jaxpr):
                yield from _equations(inner)


def _is_loose(equation: Any) -> bool:
    precision = equation.params["precision"]
    both = precision if isinstance(precision, tuple) else (precision,) * 2
    exact = all(p == jax.lax.Precision.HIGHEST for p in both)
    dtypes = [variable.aval.dtype for variable in equation.invars[:2]]
    floating = any(jax.numpy.issubdtype(dtype, jax.numpy.inexact) for dtype in dtypes)
    return floating and not exact


def _operands(equation: Any) -> str:
    return " and ".join(variable.aval.str_short() for variable in equation.invars[:2])
