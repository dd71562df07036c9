"""Counts parameters and multiply-adds of a model without running it."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jax.interpreters.partial_eval import dce_jaxpr

from kdlab.models._outputs import Outputs
from kdlab.models._zoo import create, find


class Summary(NamedTuple):
    """Size, cost and output shapes of a model for one image.

    Attributes:
        parameters: Number of trainable scalars.
        multiply_adds: Number of multiplications in convolutions and matrix products
            on the way to the logits.
        outputs: Shapes and dtypes of the outputs of a batch of one.
    """

    parameters: int
    multiply_adds: int
    outputs: Outputs


def summary(
    name: str,
    *,
    num_classes: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
    **options: Any,
) -> Summary:
    r"""Counts parameters and multiply-adds by tracing a model with abstract values.

    .. math::
        \mathrm{conv} = h\,w\,d_{out} \cdot k_h\,k_w\,\frac{d_{in}}{groups}
        \qquad \mathrm{dense} = d_{in}\,d_{out}

    Args:
        name: A key of :data:`~kdlab.models.MODELS`.
        num_classes: Number of classes; by default that of the model's data set.
        image_shape: ``(height, width, channels)``; by default that of its data set.
        **options: Other arguments of the constructor.

    Returns:
        Counts and shapes, without allocation or compilation.

    Raises:
        ValueError: If there is no such model.

    Examples:
        >>> from kdlab import models
        >>> counts = models.summary("resnet20")
        >>> f"{counts.parameters:,} parameters, {counts.multiply_adds:,} multiply-adds"
        '278,324 parameters, 40,818,944 multiply-adds'
    """
    image_shape = image_shape or find(name).image_shape
    model = nnx.eval_shape(
        lambda: create(
            name,
            num_classes=num_classes,
            image_shape=image_shape,
            rngs=nnx.Rngs(0),
            **options,
        )
    )
    model.eval()  # without updates of statistics, which halves the trace
    graphdef, state = nnx.split(model)

    def forward(state: nnx.State, image: jax.Array) -> Outputs:
        return nnx.merge(graphdef, state, copy=True)(image)

    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    traced, outputs = jax.make_jaxpr(forward, return_shape=True)(state, image)
    # What only other outputs need does not count, such as the attention of a token.
    needed = [True] + [False] * (len(traced.jaxpr.outvars) - 1)
    program, _ = dce_jaxpr(traced.jaxpr, needed)
    return Summary(
        parameters=sum(
            math.prod(leaf.shape)
            for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))
        ),
        multiply_adds=count_multiply_adds(program),
        outputs=outputs,
    )


def count_multiply_adds(program: Jaxpr) -> int:
    """Counts the multiplications in convolutions and matrix products of a program.

    Args:
        program: The program, without loops but ``jax.lax.scan``.

    Examples:
        >>> import jax
        >>> x = jax.ShapeDtypeStruct((3, 4), "float32")
        >>> count_multiply_adds(jax.make_jaxpr(lambda x: x @ x.T)(x).jaxpr)
        36
    """
    return sum(turns * _multiply_adds(x) for x, turns in _equations(program))


def _equations(jaxpr: Jaxpr, turns: int = 1) -> Iterator[tuple[JaxprEqn, int]]:
    """Yields the equations of a program and its calls, and how often each is run."""
    for equation in jaxpr.eqns:
        yield equation, turns
        scan = equation.primitive.name == "scan"
        inside = turns * (equation.params["length"] if scan else 1)
        for inner in equation.params.values():
            if isinstance(inner, ClosedJaxpr):
                yield from _equations(inner.jaxpr, inside)
            elif isinstance(inner, Jaxpr):  # of a rematerialised block
                yield from _equations(inner, inside)


def _multiply_adds(equation: JaxprEqn) -> int:
    name = equation.primitive.name
    if name not in ("conv_general_dilated", "dot_general"):
        return 0
    left, right = map(_shape, equation.invars[:2])
    if name == "conv_general_dilated":
        # The size of the kernel [k, k, d_in / groups, d_out] without its last axis.
        d_out = right[equation.params["dimension_numbers"].rhs_spec[0]]
        per_output = math.prod(right) // d_out
    else:
        (contracted, _), _ = equation.params["dimension_numbers"]
        per_output = math.prod(left[axis] for axis in contracted)
    return math.prod(_shape(equation.outvars[0])) * per_output


def _shape(variable: Var | Literal) -> tuple[int, ...]:
    assert isinstance(variable.aval, ShapedArray)
    return variable.aval.shape
