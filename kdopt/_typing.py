"""Names for the few types that every module shares; nothing else."""

from collections.abc import Sequence
from typing import Any, TypeAlias

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
"""What a user may pass for them: an array or K scalars."""

Mask: TypeAlias = Bool[Array, " k"]
"""Which of the K losses are present in a step."""

PresentLike: TypeAlias = Any
"""What a user may pass for it: an array, K bools or numbers, or None for all."""

Balancer: TypeAlias = optax.GradientTransformationExtraArgs
"""An Optax transform from a tuple of K gradient trees to one tree."""

Scalarizer: TypeAlias = optax.GradientTransformationExtraArgs
"""An Optax transform that passes one tree through and learns weights from values."""
