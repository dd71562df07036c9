"""The table of distillation losses."""

from kdlab.losses import (
    logits,
    maps,
    masked,
    relations,
    review,
    self_teaching,
    similarities,
    tokens,
)
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
    "deit_hard": tokens.DeitHard,
    "deit_soft": tokens.DeitSoft,
    "vkd_tokens": tokens.VkdTokens,
    "vkd_released": tokens.VkdReleased,
    "srd": tokens.Srd,
    "manifold": similarities.Manifold,
    "masked_kd": masked.MaskedKd,
    "uskd": self_teaching.Uskd,
}
"""Sources of weights: megvii-research/mdistiller a08d46f (``cfg.py``); for
``kd_standardized``, ``dist``, ``mlkd``, ``ctkd``, ``tpkd``, ``vkd``, ``nd`` and
``reviewkd_pp`` their papers; for losses of transformers the code of their authors:
facebookresearch/deit 7e160fe, roymiles/VkD 6f8a507, roymiles/Simple-Recipe-Distillation
31e8477, Hao840/manifold-distillation 1096b82, effl-lab/MaskedKD 96d052d,
yzd-v/cls_KD 1e5d48f."""


def loss_weights(distillation: Distillation) -> tuple[float, ...]:
    """Returns the fixed weights of the task and of each distillation loss.

    Raises:
        ValueError: If the settings have weights for another number of losses.
    """
    names = "task", *LOSSES[distillation.loss].names
    weights = distillation.loss_weights or LOSSES[distillation.loss].weights
    if distillation.alpha is not None:
        weights = 1 - distillation.alpha, distillation.alpha
    if len(weights) != len(names):
        raise ValueError(
            f"--loss {distillation.loss} has the losses {', '.join(names)}: give each "
            f"a weight by --loss-weights and --alpha None; got {len(weights)} weights."
        )
    return weights
