"""Balancers: transforms from a tuple of K gradient trees to one tree."""

from kdopt.balancers._dot import dot
from kdopt.balancers._dto_kd import dto_kd, dto_kd_weights
from kdopt.balancers._dynamic_lambda import dynamic_lambda, dynamic_lambda_weights
from kdopt.balancers._linear import LinearState, linear
from kdopt.balancers._min_norm import min_norm, min_norm_weights
from kdopt.balancers._streams import StreamsState, streams

__all__ = [
    "LinearState",
    "StreamsState",
    "dot",
    "dto_kd",
    "dto_kd_weights",
    "dynamic_lambda",
    "dynamic_lambda_weights",
    "linear",
    "min_norm",
    "min_norm_weights",
    "streams",
]
