"""Distillation losses: pure functions of a batch, each a mean over it.

The following holds for all of them.

* **Tokens.** Losses on logits take ``[..., c]``: ``[b, c]``, or ``[b, t, c]`` for
  sequences, with labels and weights ``[...]``. Those that compare examples
  (:func:`dist`, :func:`mlkd` and its correlations) treat every position as one.
* **Masks.** ``sample_weights`` ``[...]`` say how often each example counts. An example
  of weight 0 may hold anything, even NaN and infinities, in every argument: the value
  is as without the row, and the gradient of the row is 0. A negative weight counts as
  0; a weight of NaN makes the loss NaN. Where all weights are 0 the loss is 0.
* **Denominators.** A loss is a sum over the examples, in float32 or wider, divided by
  ``denominator``. ``"mean"``, the default, is the sum of the weights, which for a mask
  is the number of tokens in the batch; ``"count"`` is the number of examples whose
  weight is not 0. A number may be traced: with the number of tokens of all
  micro-batches or devices, their gradients add up to that of the whole batch. Each loss
  has its own denominator.
* **Labels.** A class index outside ``[0, c)``, such as -1, -100 or 255, is not a class
  and leaves its example out, like a weight of 0. No error is raised, since labels are
  not known during tracing.
* **Shapes.** Shapes given in brackets are checked during tracing, at no cost when the
  function runs: any other shape is a ``ValueError``, and nothing is broadcast. NumPy
  arrays and lists of numbers are converted; integers and half precision are computed in
  float32.
* **Temperatures.** One number, or ``[..., 1]`` for one per example where the loss is a
  mean over examples. A number that is not positive is a ``ValueError``; a traced one is
  not checked.
* **Impossible classes.** A logit of ``-inf`` in both networks, as in a padded
  vocabulary, changes neither value nor gradient (:func:`binary_kd` treats it as a
  certain no). Where only the student excludes a class, a divergence is infinite.
* **Precision.** Divergences stay accurate where the networks almost agree and at high
  temperatures, and are never negative. Matrix products use full precision.
"""

from kdopt.losses._at import at
from kdopt.losses._binary import binary_cross_entropy, binary_kd
from kdopt.losses._crd import CrdState, crd, crd_init
from kdopt.losses._ctkd import ctkd_reversal, ctkd_temperature
from kdopt.losses._deepkd import deepkd, deepkd_top_k
from kdopt.losses._dist import dist
from kdopt.losses._fitnet import fitnet
from kdopt.losses._hcl import hcl
from kdopt.losses._kdsvd import kdsvd
from kdopt.losses._linear import linear_losses
from kdopt.losses._logits import cross_entropy, dkd, kd, soft_distance
from kdopt.losses._mixtures import jensen_shannon, skew_kl
from kdopt.losses._mlkd import batch_correlation, class_correlation, kd_multi, mlkd
from kdopt.losses._nd import class_means, nd
from kdopt.losses._nst import nst
from kdopt.losses._ofd import ofd, ofd_margin
from kdopt.losses._pkt import pkt
from kdopt.losses._reverse_kl import reverse_kl
from kdopt.losses._rkd import rkd, rkd_angle, rkd_distance
from kdopt.losses._sp import sp
from kdopt.losses._span import span_cross_entropy, span_kd
from kdopt.losses._standardize import kd_standardized, standardize_logits
from kdopt.losses._top_k import top_k_kl
from kdopt.losses._total_variation import total_variation
from kdopt.losses._tpkd import tpkd
from kdopt.losses._universal_logit import universal_logit
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
    "jensen_shannon",
    "kd",
    "kd_multi",
    "kd_standardized",
    "kdsvd",
    "linear_losses",
    "mlkd",
    "nd",
    "nst",
    "ofd",
    "ofd_margin",
    "pkt",
    "reverse_kl",
    "rkd",
    "rkd_angle",
    "rkd_distance",
    "skew_kl",
    "soft_distance",
    "sp",
    "span_cross_entropy",
    "span_kd",
    "standardize_logits",
    "top_k_kl",
    "total_variation",
    "tpkd",
    "universal_logit",
    "vid",
    "vkd",
]


def __dir__() -> list[str]:
    return __all__
