"""Scalarizers: weights from loss values alone, one backward pass a step."""

from kdopt.scalarizers._dto_kd_amortized import DtoKdAmortizedState, dto_kd_amortized

__all__ = ["DtoKdAmortizedState", "dto_kd_amortized"]
