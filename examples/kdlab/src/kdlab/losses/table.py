"""The table of distillation losses."""

from kdlab.losses import logits, maps, relations, review
from kdlab.losses.base import KdLoss
from kdlab.settings.parts import Distillation

LOSSES: dict[str, type[KdLoss]] = {
    "kd": logits.Kd,
    "soft_ce": logits.SoftCe,
    "soft_kl": logits.SoftKl,
    "soft_mse": logits.SoftMse,
    "kd_standardized": logits.KdStandardized,
    "dkd": logits.Dkd,
    "dist": logits.Dist,
    "mlkd": logits.Mlkd,
    "ctkd": logits.Ctkd,
    "tpkd": logits.Tpkd,
    "fitnet": maps.FitNet,
    "at": maps.At,
    "nst": maps.Nst,
    "ofd": maps.Ofd,
    "vid": maps.Vid,
    "kdsvd": maps.Kdsvd,
    "reviewkd": review.ReviewKd,
    "nd": review.Nd,
    "reviewkd_pp": review.ReviewKdPlusPlus,
    "vkd": relations.Vkd,
    "rkd": relations.Rkd,
    "pkt": relations.Pkt,
    "sp": relations.Sp,
    "crd": relations.Crd,
}
"""Sources of weights: megvii-research/mdistiller a08d46f (``cfg.py``), and for
``kd_standardized``, ``dist``, ``mlkd``, ``ctkd``, ``tpkd``, ``vkd``, ``nd`` and
``reviewkd_pp`` their papers."""


def loss_weights(distillation: Distillation) -> tuple[float, float]:
    """Returns the fixed weights of the task and the distillation loss."""
    if distillation.alpha is not None:
        return 1 - distillation.alpha, distillation.alpha
    return distillation.loss_weights or LOSSES[distillation.loss].weights
