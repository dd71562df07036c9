"""Type aliases and protocols that all modules share."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import optax
from jaxtyping import Array, Bool, Float

PerLossGrads: TypeAlias = tuple[Any, ...]
"""K gradient trees, each shaped like the parameters; the task loss comes first."""

Gram: TypeAlias = Float[Array, "k k"]
"""Inner products of the gradients."""

Weights: TypeAlias = Float[Array, " k"]
"""Coefficients of the combined update, ``sum_i weights[i] * grads[i]``."""

Scalar: TypeAlias = Float[Array, ""]
"""A zero-dimensional array."""

Values: TypeAlias = Float[Array, " k"]
"""The K loss values of a step."""

ValuesLike: TypeAlias = Values | Sequence[jax.Array | float]
"""Loss values as a user may pass them: an array or K scalars."""

Mask: TypeAlias = Bool[Array, " k"]
"""Which of the K losses are present in a step."""

PresentLike: TypeAlias = Any
"""A mask as a user may pass it: an array, K bools or numbers, or None for all."""

Balancer: TypeAlias = optax.GradientTransformationExtraArgs
"""An Optax transform from a tuple of K gradient trees to one tree."""

Scalarizer: TypeAlias = optax.GradientTransformationExtraArgs
"""An Optax transform that passes one tree through and learns weights from values."""

LossesFn: TypeAlias = Callable[..., Any]
"""A function that returns K losses, with or without auxiliary data."""

Losses: TypeAlias = jax.Array | Sequence[jax.Array | float]
"""K losses as such a function may return them: an array ``[k]`` or K scalars."""

Aux = TypeVar("Aux")
Out = TypeVar("Out", covariant=True)


@runtime_checkable
class GradFn(Protocol[Out]):
    """A function of the arguments of ``losses_fn`` and of ``present``."""

    def __call__(
        self, *args: Any, present: PresentLike = None, **kwargs: Any
    ) -> Out: ...


@runtime_checkable
class WeightedGradFn(Protocol[Out]):
    """A function of the arguments of ``losses_fn`` and of ``weights``."""

    def __call__(
        self,
        *args: Any,
        weights: Weights | Callable[[Values], Weights],
        present: PresentLike = None,
        **kwargs: Any,
    ) -> Out: ...


@runtime_checkable
class SharedGradFn(Protocol[Out]):
    """A function of the parameters, other arguments, and the state of the balancer."""

    def __call__(
        self,
        params: Any,
        *args: Any,
        state: Any,
        present: PresentLike = None,
        **kwargs: Any,
    ) -> Out: ...
