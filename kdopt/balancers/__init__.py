"""Balancers: transforms from a tuple of K gradient trees to one tree."""

from kdopt.balancers._dot import dot
from kdopt.balancers._dot_adam import (
    DotAdamState,
    dot_adam,
    dot_adamw,
    scale_by_dot_adam,
)
from kdopt.balancers._dot_lars import dot_lars
from kdopt.balancers._dot_lion import DotLionState, dot_lion, scale_by_dot_lion
from kdopt.balancers._dto_kd import dto_kd, dto_kd_weights
from kdopt.balancers._dynamic_lambda import dynamic_lambda, dynamic_lambda_weights
from kdopt.balancers._gain_matched_sgd import gain_matched_sgd
from kdopt.balancers._linear import LinearState, linear
from kdopt.balancers._min_norm import min_norm, min_norm_weights
from kdopt.balancers._streams import StreamsState, streams

__all__ = [
    "DotAdamState",
    "DotLionState",
    "LinearState",
    "StreamsState",
    "dot",
    "dot_adam",
    "dot_adamw",
    "dot_lars",
    "dot_lion",
    "dto_kd",
    "dto_kd_weights",
    "dynamic_lambda",
    "dynamic_lambda_weights",
    "gain_matched_sgd",
    "linear",
    "min_norm",
    "min_norm_weights",
    "scale_by_dot_adam",
    "scale_by_dot_lion",
    "streams",
]
