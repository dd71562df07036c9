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
from kdopt.scalarizers import (
    cosmos,
    cosmos_weights,
    dto_kd_amortized,
    dwa,
    dwa_weights,
    famo,
    famo_weights,
    geometric_mean,
    geometric_mean_weights,
    imtl_l,
    imtl_l_weights,
    pbi,
    pbi_weights,
    softadapt,
    softadapt_weights,
    stch,
    stch_weights,
    uncertainty,
    uncertainty_weights,
)
from kdopt.wrappers import each

__version__ = "0.1.0"

__all__ = [
    "WeightsState",
    "balancers",
    "combine",
    "cosmos",
    "cosmos_weights",
    "diagnostics",
    "dot",
    "dto_kd",
    "dto_kd_amortized",
    "dto_kd_weights",
    "dwa",
    "dwa_weights",
    "dynamic_lambda",
    "dynamic_lambda_weights",
    "each",
    "famo",
    "famo_weights",
    "from_weights",
    "geometric_mean",
    "geometric_mean_weights",
    "gram",
    "harm_free_interval",
    "imtl_l",
    "imtl_l_weights",
    "lambda_roots",
    "lambda_vertex",
    "linear",
    "loss_decrease",
    "loss_weights",
    "losses",
    "min_norm",
    "min_norm_weights",
    "pbi",
    "pbi_weights",
    "scalarizers",
    "softadapt",
    "softadapt_weights",
    "stch",
    "stch_weights",
    "streams",
    "uncertainty",
    "uncertainty_weights",
    "value_and_grads",
    "value_and_shared_grad",
    "value_and_weighted_grad",
]
