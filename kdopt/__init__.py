"""Optax for several losses: gradient balancing and knowledge distillation in JAX."""

from kdopt import losses
from kdopt._gram import combine, gram

__version__ = "0.1.0"

__all__ = ["combine", "gram", "losses"]
