"""Balancers: transforms from a tuple of K gradient trees to one tree."""

from kdopt._traces import TracesState
from kdopt.balancers._aligned_mtl import aligned_mtl, aligned_mtl_weights
from kdopt.balancers._bloop import BloopState, bloop
from kdopt.balancers._cagrad import cagrad, cagrad_weights
from kdopt.balancers._conflict_free import conflict_free, conflict_free_weights
from kdopt.balancers._constrained import (
    ConstraintCounts,
    constrained,
    constrained_weights,
)
from kdopt.balancers._db_mtl import db_mtl, db_mtl_weights
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
from kdopt.balancers._dual_proj import dual_proj, dual_proj_weights
from kdopt.balancers._dynamic_barrier import (
    DynamicBarrierMemory,
    dynamic_barrier,
    dynamic_barrier_weights,
)
from kdopt.balancers._dynamic_lambda import dynamic_lambda, dynamic_lambda_weights
from kdopt.balancers._equal_norms import (
    EqualNormsMemory,
    equal_norms,
    equal_norms_weights,
)
from kdopt.balancers._excess_mtl import ExcessMtlState, excess_mtl
from kdopt.balancers._fairgrad import fairgrad, fairgrad_weights
from kdopt.balancers._ferero import ferero, ferero_weights
from kdopt.balancers._gain_matched_sgd import gain_matched_sgd
from kdopt.balancers._grad_cosine import grad_cosine, grad_cosine_weights
from kdopt.balancers._graddrop import GradDropState, graddrop
from kdopt.balancers._gradnorm import gradnorm
from kdopt.balancers._gradvac import gradvac, gradvac_weights
from kdopt.balancers._imtl_g import imtl_g, imtl_g_weights
from kdopt.balancers._krum import krum, krum_weights
from kdopt.balancers._linear import LinearState, linear
from kdopt.balancers._min_norm import min_norm, min_norm_weights
from kdopt.balancers._moco import moco
from kdopt.balancers._modo import modo, modo_weights
from kdopt.balancers._multi_adam import (
    MultiAdamState,
    mt_adam,
    multi_adam,
    scale_by_mt_adam,
    scale_by_multi_adam,
)
from kdopt.balancers._nash_mtl import nash_mtl, nash_mtl_weights
from kdopt.balancers._pcd import PcdMemory, pcd, pcd_weights
from kdopt.balancers._pcgrad import pcgrad, pcgrad_weights
from kdopt.balancers._random_weights import random_weights
from kdopt.balancers._reference_aligned import (
    ReferenceAlignedMemory,
    reference_aligned,
    reference_aligned_weights,
)
from kdopt.balancers._sdmgrad import sdmgrad, sdmgrad_weights
from kdopt.balancers._streams import StreamsState, streams
from kdopt.balancers._trimmed_mean import trimmed_mean
from kdopt.balancers._upgrad import upgrad, upgrad_weights

__all__ = [
    "BloopState",
    "ConstraintCounts",
    "DotAdamState",
    "DotLionState",
    "DynamicBarrierMemory",
    "EqualNormsMemory",
    "ExcessMtlState",
    "GradDropState",
    "LinearState",
    "MultiAdamState",
    "PcdMemory",
    "ReferenceAlignedMemory",
    "StreamsState",
    "TracesState",
    "aligned_mtl",
    "aligned_mtl_weights",
    "bloop",
    "cagrad",
    "cagrad_weights",
    "conflict_free",
    "conflict_free_weights",
    "constrained",
    "constrained_weights",
    "db_mtl",
    "db_mtl_weights",
    "dot",
    "dot_adam",
    "dot_adamw",
    "dot_lars",
    "dot_lion",
    "dto_kd",
    "dto_kd_weights",
    "dual_proj",
    "dual_proj_weights",
    "dynamic_barrier",
    "dynamic_barrier_weights",
    "dynamic_lambda",
    "dynamic_lambda_weights",
    "equal_norms",
    "equal_norms_weights",
    "excess_mtl",
    "fairgrad",
    "fairgrad_weights",
    "ferero",
    "ferero_weights",
    "gain_matched_sgd",
    "grad_cosine",
    "grad_cosine_weights",
    "graddrop",
    "gradnorm",
    "gradvac",
    "gradvac_weights",
    "imtl_g",
    "imtl_g_weights",
    "krum",
    "krum_weights",
    "linear",
    "min_norm",
    "min_norm_weights",
    "moco",
    "modo",
    "modo_weights",
    "mt_adam",
    "multi_adam",
    "nash_mtl",
    "nash_mtl_weights",
    "pcd",
    "pcd_weights",
    "pcgrad",
    "pcgrad_weights",
    "random_weights",
    "reference_aligned",
    "reference_aligned_weights",
    "scale_by_dot_adam",
    "scale_by_dot_lion",
    "scale_by_mt_adam",
    "scale_by_multi_adam",
    "sdmgrad",
    "sdmgrad_weights",
    "streams",
    "trimmed_mean",
    "upgrad",
    "upgrad_weights",
]


def __dir__() -> list[str]:
    return __all__
