"""Losses of distillation: pure functions of a batch, each a mean over it."""

from kdopt.losses._logits import cross_entropy, dkd, kd, soft_distance

__all__ = ["cross_entropy", "dkd", "kd", "soft_distance"]
