"""Makes networks by users' functions."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from kdlab.basics.importing import import_function
from kdlab.basics.reading import UserError
from kdlab.models._outputs import Model, Outputs


def check_options(
    name: str, make: Callable[..., Any], options: Collection[str], instead: str
) -> None:
    """Refuses options that the constructor of a network does not take.

    Args:
        name: Name of the network.
        make: A function or class, or ``functools.partial`` of one.
        options: Names of arguments.
        instead: What to do, if not to leave the option out.

    Raises:
        UserError: Names the option.
    """
    make = make.func if isinstance(make, functools.partial) else make
    make = make.__init__ if isinstance(make, type) else make
    parameters = inspect.signature(make).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            raise UserError(
                f"{name} takes no argument {option!r}: {instead}, or leave "
                f"--{option.replace('_', '-')} out."
            )


class LogitsOnly(Model):
    """A network that returns only logits.

    Args:
        network: Maps images ``[b, h, w, d]`` to logits ``[b, c]``.
    """

    def __init__(self, network: nnx.Module):
        self.network = network

    def __call__(self, x: jax.Array) -> Outputs:
        """Runs the network; there are no features."""
        absent: Any = None
        logits: Any = self.network
        return Outputs(logits(x), (), (), pooled=absent)


def make_user_model(
    name: str,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    rngs: nnx.Rngs,
    options: Mapping[str, Any],
) -> Model:
    """Makes a network by a user's function, and checks the result.

    Args:
        name: ``MODULE:FUNCTION``. The function takes ``num_classes``, ``image_shape``
            and ``rngs`` by keyword, and may take ``dtype``, ``batch_norm_group``,
            ``max_blocks``, ``drop_path``, ``remat`` and ``scan``. It returns an
            ``nnx.Module`` that maps images ``[b, h, w, d]`` to logits ``[b, c]`` or to
            :class:`Outputs`.
        num_classes: Number of classes.
        image_shape: ``(height, width, channels)``.
        rngs: Random streams of the initial values.
        options: Optional arguments; None is not passed on.

    Raises:
        ValueError: If the function does not exist or returns something else.
    """
    function = import_function(name)
    given = {key: value for key, value in options.items() if value is not None}
    check_options(name, function, given, "add it")
    made = function(
        num_classes=num_classes, image_shape=image_shape, rngs=rngs, **given
    )
    if not isinstance(made, nnx.Module):
        raise UserError(
            f"{name} returned {type(made).__name__}, expected a flax.nnx.Module."
        )
    network = _wrapped(name, made, image_shape)
    _check(name, network, num_classes, image_shape)
    return network


def _wrapped(name: str, made: Any, image_shape: tuple[int, int, int]) -> Model:
    outputs = _shapes(made, image_shape)
    if isinstance(outputs, Outputs):
        return made
    if isinstance(outputs, jax.ShapeDtypeStruct):
        return LogitsOnly(made)
    raise UserError(
        f"{name}: the network returned {type(outputs).__name__}, expected logits "
        "[b, c], or kdlab.models.Outputs for losses that compare features."
    )


def _check(
    name: str, network: Model, num_classes: int, image_shape: tuple[int, int, int]
) -> None:
    logits = _shapes(network, image_shape).logits
    if logits.shape != (2, num_classes):
        raise UserError(
            f"{name}: the logits of 2 images {list(image_shape)} have the shape "
            f"{list(logits.shape)}, expected [2, {num_classes}]: one score for each of "
            f"the {num_classes} classes of the data set (num_classes)."
        )
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise UserError(
            f"{name}: the logits are {logits.dtype}, expected floating-point numbers."
        )


def _shapes(network: Any, image_shape: tuple[int, int, int]) -> Any:
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    graphdef, state = nnx.split(network)
    return jax.eval_shape(
        lambda state, x: nnx.merge(graphdef, state, copy=True)(x), state, images
    )
