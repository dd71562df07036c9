"""Losses of distillation: pure functions of a batch, each a mean over it."""

from kdopt.losses._at import at
from kdopt.losses._binary import binary_cross_entropy, binary_kd
from kdopt.losses._crd import CrdState, crd, crd_init
from kdopt.losses._ctkd import ctkd_reversal, ctkd_temperature
from kdopt.losses._deepkd import deepkd, deepkd_top_k
from kdopt.losses._dist import dist
from kdopt.losses._fitnet import fitnet
from kdopt.losses._hcl import hcl
from kdopt.losses._kdsvd import kdsvd
from kdopt.losses._logits import cross_entropy, dkd, kd, soft_distance
from kdopt.losses._mlkd import batch_correlation, class_correlation, kd_multi, mlkd
from kdopt.losses._nd import class_means, nd
from kdopt.losses._nst import nst
from kdopt.losses._ofd import ofd, ofd_margin
from kdopt.losses._pkt import pkt
from kdopt.losses._rkd import rkd, rkd_angle, rkd_distance
from kdopt.losses._sp import sp
from kdopt.losses._standardize import kd_standardized, standardize_logits
from kdopt.losses._tpkd import tpkd
from kdopt.losses._vid import vid
from kdopt.losses._vkd import vkd

__all__ = [
    "CrdState",
    "at",
    "batch_correlation",
    "binary_cross_entropy",
    "binary_kd",
    "class_correlation",
    "class_means",
    "crd",
    "crd_init",
    "cross_entropy",
    "ctkd_reversal",
    "ctkd_temperature",
    "deepkd",
    "deepkd_top_k",
    "dist",
    "dkd",
    "fitnet",
    "hcl",
    "kd",
    "kd_multi",
    "kd_standardized",
    "kdsvd",
    "mlkd",
    "nd",
    "nst",
    "ofd",
    "ofd_margin",
    "pkt",
    "rkd",
    "rkd_angle",
    "rkd_distance",
    "soft_distance",
    "sp",
    "standardize_logits",
    "tpkd",
    "vid",
    "vkd",
]
