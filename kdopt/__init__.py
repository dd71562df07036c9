"""Optax for several losses: gradient balancing and knowledge distillation in JAX."""

from kdopt import balancers, diagnostics, losses, scalarizers
from kdopt._gram import combine, gram
from kdopt._parabola import (
    harm_free_interval,
    lambda_roots,
    lambda_vertex,
    loss_decrease,
)
from kdopt._transform import WeightsState, from_weights, loss_weights
from kdopt.balancers import (
    dot,
    dto_kd,
    dto_kd_weights,
    dynamic_lambda,
    dynamic_lambda_weights,
    linear,
    min_norm,
    min_norm_weights,
    streams,
)
from kdopt.per_loss import (
    value_and_grads,
    value_and_shared_grad,
    value_and_weighted_grad,
)
from kdopt.scalarizers import dto_kd_amortized
from kdopt.wrappers import each

__version__ = "0.1.0"

__all__ = [
    "WeightsState",
    "balancers",
    "combine",
    "diagnostics",
    "dot",
    "dto_kd",
    "dto_kd_amortized",
    "dto_kd_weights",
    "dynamic_lambda",
    "dynamic_lambda_weights",
    "each",
    "from_weights",
    "gram",
    "harm_free_interval",
    "lambda_roots",
    "lambda_vertex",
    "linear",
    "loss_decrease",
    "loss_weights",
    "losses",
    "min_norm",
    "min_norm_weights",
    "scalarizers",
    "streams",
    "value_and_grads",
    "value_and_shared_grad",
    "value_and_weighted_grad",
]
