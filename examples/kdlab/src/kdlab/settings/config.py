"""Settings of a distillation experiment."""

import dataclasses
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdlab.settings.augmentation import Augmentation
from kdlab.settings.checks import check_range, check_types
from kdlab.settings.parts import (
    TEACHER_FREE,
    Data,
    Distillation,
    Execution,
    Networks,
    Training,
)

METHODS = (
    *("labels_only", "kd", "dot", "dto_kd", "dto_kd_shared", "dto_kd_amortized"),
    *("dynamic_lambda", "min_norm"),
)
"""Names of the methods; :mod:`kdlab.train.methods` makes them."""


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of an experiment; by default the small one on digits."""

    name: str = "digits"
    """Everything is written to RUNS/NAME; the same command resumes it."""
    methods: tuple[str, ...] = METHODS
    """Methods to compare, in this order."""
    seeds: int = 3
    """Number of seeds (0, 1, ...); each draws its own labels, noise, initial weights
    and batches."""
    data: Data = dataclasses.field(default_factory=Data)
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    networks: Networks = dataclasses.field(default_factory=Networks)
    distillation: Distillation = dataclasses.field(default_factory=Distillation)
    training: Training = dataclasses.field(default_factory=Training)
    execution: Execution = dataclasses.field(default_factory=Execution)

    def __post_init__(self) -> None:
        """Refuses invalid values, and parts that contradict each other."""
        check_types(self)
        check_range(self)
        self._check_name()
        self._check_methods()

    def _check_name(self) -> None:
        if ".." in Path(self.name).parts or Path(self.name).is_absolute():
            raise ValueError(
                f"--name {self.name!r} is not a folder below --runs: give a name, or "
                "several separated by slashes."
            )

    def _check_methods(self) -> None:
        delta, momentum = self.distillation.delta, self.training.momentum
        free = self.distillation.loss in TEACHER_FREE
        alone = self.networks.teacher is None and not free
        if alone and self.methods != ("labels_only",):
            raise ValueError(
                "--teacher None needs --methods labels_only: all others need a "
                f"teacher, except with --loss {' or '.join(TEACHER_FREE)}."
            )
        if "dot" not in self.methods:
            return
        if self.training.clip is not None:
            raise ValueError(
                "--clip needs a combined gradient, but `dot` keeps two momenta: "
                "leave dot out of --methods, or give --clip None."
            )
        if not abs(delta) <= min(momentum, 1 - momentum):
            raise ValueError(
                f"--delta {delta} takes DOT's momenta {momentum} ± delta out of [0, 1]."
            )

    @property
    def directory(self) -> Path:
        """Folder to which everything of this experiment is written."""
        return self.execution.runs / self.name

    def settings(self) -> dict[str, Any]:
        """Returns the settings that affect the results, as JSON values by name."""
        kept = {k: v for k, v in flatten(self).items() if k not in WITHOUT_EFFECT}
        return json.loads(json.dumps(kept, default=str))


PARTS: Mapping[str, type] = types.MappingProxyType(
    {
        "data": Data,
        "augmentation": Augmentation,
        "networks": Networks,
        "distillation": Distillation,
        "training": Training,
        "execution": Execution,
    }
)
PART_OF = {
    field.name: part
    for part, kind in PARTS.items()
    for field in dataclasses.fields(kind)
}
"""The part that holds each setting; fields of :class:`Config` itself are not here."""

NAMES = (*(f.name for f in dataclasses.fields(Config) if f.name not in PARTS), *PART_OF)
"""Names of all settings: their command-line options, with underscores."""

WITHOUT_EFFECT = {"methods", "seeds", "data_dir", "workers"} | {
    name for name, part in PART_OF.items() if part == "execution"
}
"""Settings that do not change the result of a run, up to rounding."""


def flatten(config: Config) -> dict[str, Any]:
    """Returns all settings by name, whichever part holds them."""
    return {
        name: getattr(
            getattr(config, PART_OF[name]) if name in PART_OF else config, name
        )
        for name in NAMES
    }


def configure(config: Config | None = None, **settings: Any) -> Config:
    """Replaces settings by name, whichever part holds them.

    Args:
        config: Settings to start from; None: the defaults.
        **settings: New values by name.

    Raises:
        TypeError: If there is no such setting.
        ValueError: If a value is invalid.

    Examples:
        >>> config = configure(labels=1000, epochs=5)
        >>> (config.data.labels, config.training.epochs)
        (1000, 5)
    """
    config = Config() if config is None else config
    changes: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in NAMES:
            raise TypeError(f"there is no setting {name!r}")
        if name in PART_OF:
            changes.setdefault(PART_OF[name], {})[name] = value
        else:
            changes[name] = value
    for part in PARTS:
        if part in changes:
            old = getattr(config, part)
            changes[part] = dataclasses.replace(old, **changes[part])
    return dataclasses.replace(config, **changes)
