"""Wrappers that do for a tuple of gradients what Optax's own cannot."""

from kdopt.wrappers._accumulate import AccumulateState, accumulate
from kdopt.wrappers._each import each
from kdopt.wrappers._ema import EmaState, ema
from kdopt.wrappers._every import EveryState, every
from kdopt.wrappers._guard import GuardState, guard
from kdopt.wrappers._monitor import MonitorState, monitor
from kdopt.wrappers._partition import PartitionState, partition, per_layer
from kdopt.wrappers._restrict import RestrictState, restrict
from kdopt.wrappers._skip_nonfinite import SkipNonfiniteState, skip_nonfinite

__all__ = [
    "AccumulateState",
    "EmaState",
    "EveryState",
    "GuardState",
    "MonitorState",
    "PartitionState",
    "RestrictState",
    "SkipNonfiniteState",
    "accumulate",
    "each",
    "ema",
    "every",
    "guard",
    "monitor",
    "partition",
    "per_layer",
    "restrict",
    "skip_nonfinite",
]


def __dir__() -> list[str]:
    return __all__
