"""Scalarizers: weights from loss values alone, one backward pass per step."""

from kdopt._loss_weights import ValuesState
from kdopt.scalarizers._cosmos import CosmosState, cosmos, cosmos_weights
from kdopt.scalarizers._dto_kd_amortized import dto_kd_amortized
from kdopt.scalarizers._dwa import dwa, dwa_weights
from kdopt.scalarizers._famo import famo
from kdopt.scalarizers._geometric_mean import (
    GeometricMeanState,
    geometric_mean,
    geometric_mean_weights,
)
from kdopt.scalarizers._hypergradient import HypergradientState, hypergradient
from kdopt.scalarizers._imtl_l import imtl_l, imtl_l_weights
from kdopt.scalarizers._lagrangian import LagrangianMemory, lagrangian
from kdopt.scalarizers._log_scales import LogScalesState
from kdopt.scalarizers._log_softmax import LogSoftmaxState, famo_weights
from kdopt.scalarizers._magnitude_match import (
    MagnitudeMatchState,
    magnitude_match,
    magnitude_match_weights,
)
from kdopt.scalarizers._memory import MemoryState
from kdopt.scalarizers._momentum_conflict_free import (
    MomentumConflictFreeState,
    momentum_conflict_free,
)
from kdopt.scalarizers._pbi import PbiState, pbi, pbi_weights
from kdopt.scalarizers._random_weighting import RandomWeightingState, random_weighting
from kdopt.scalarizers._relobralo import RelobraloMemory, relobralo, relobralo_weights
from kdopt.scalarizers._slaw import SlawMemory, slaw, slaw_weights
from kdopt.scalarizers._softadapt import softadapt, softadapt_weights
from kdopt.scalarizers._stch import StchState, stch, stch_weights
from kdopt.scalarizers._uncertainty import uncertainty, uncertainty_weights
from kdopt.scalarizers._weight_search import WeightSearchState, weight_search
from kdopt.scalarizers._weighted_sum import WeightedSumState, weighted_sum
from kdopt.scalarizers._windows import WindowsState

__all__ = [
    "CosmosState",
    "GeometricMeanState",
    "HypergradientState",
    "LagrangianMemory",
    "LogScalesState",
    "LogSoftmaxState",
    "MagnitudeMatchState",
    "MemoryState",
    "MomentumConflictFreeState",
    "PbiState",
    "RandomWeightingState",
    "RelobraloMemory",
    "SlawMemory",
    "StchState",
    "ValuesState",
    "WeightSearchState",
    "WeightedSumState",
    "WindowsState",
    "cosmos",
    "cosmos_weights",
    "dto_kd_amortized",
    "dwa",
    "dwa_weights",
    "famo",
    "famo_weights",
    "geometric_mean",
    "geometric_mean_weights",
    "hypergradient",
    "imtl_l",
    "imtl_l_weights",
    "lagrangian",
    "magnitude_match",
    "magnitude_match_weights",
    "momentum_conflict_free",
    "pbi",
    "pbi_weights",
    "random_weighting",
    "relobralo",
    "relobralo_weights",
    "slaw",
    "slaw_weights",
    "softadapt",
    "softadapt_weights",
    "stch",
    "stch_weights",
    "uncertainty",
    "uncertainty_weights",
    "weight_search",
    "weighted_sum",
]


def __dir__() -> list[str]:
    return __all__
