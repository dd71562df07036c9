"""What settings are refused, each with what was expected and what to do."""

import types
import typing
from collections.abc import Iterable
from itertools import pairwise
from numbers import Integral, Real
from pathlib import Path
from typing import Any


def check_types(config: Any) -> None:
    """Refuses values of another type than that of their field.

    The command line makes no such values, but a file of settings may.

    Args:
        config: A dataclass.

    Raises:
        ValueError: At the first one; the message says what is expected.
    """
    for field, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, field)
        if not _is(value, hint):
            raise ValueError(f"{flag(field)} must be {_word(hint)}, got {value!r}.")


def _is(value: Any, hint: Any) -> bool:
    kinds = typing.get_args(hint)
    match typing.get_origin(hint):
        case typing.Union | types.UnionType:
            return any(_is(value, kind) for kind in kinds)
        case typing.Literal:
            return value in kinds
        case origin if origin is tuple:
            if not isinstance(value, tuple):
                return False
            if kinds[-1] is ...:
                kinds = kinds[:1] * len(value)
            return len(value) == len(kinds) and all(map(_is, value, kinds))
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, {int: Integral, float: Real}.get(hint, hint))


def _word(hint: Any) -> str:
    kinds = typing.get_args(hint)
    match typing.get_origin(hint):
        case typing.Union | types.UnionType:
            return " or ".join(map(_word, kinds))
        case typing.Literal:
            return " or ".join(map(repr, kinds))
        case origin if origin is tuple:
            several = kinds[-1] is ...
            return "a list" if several else f"{len(kinds)} values"
    words = {bool: "true or false", str: "a text", Path: "a path"}
    words |= {int: "a whole number", float: "a number", types.NoneType: "None"}
    return words[hint]


def check_known(field: str, value: str, table: Iterable[str]) -> None:
    """Refuses a name that is not in the table, and lists those that are."""
    if value not in table:
        known = ", ".join(table)
        raise ValueError(f"{flag(field)} {value!r} is unknown; choose {known}.")


def check_numbers(config: Any) -> None:
    """Refuses numbers out of their range.

    Args:
        config: A :class:`~kdlab.settings.config.Config`.

    Raises:
        ValueError: At the first one; the message gives the range.
    """
    _each(config, _AT_LEAST_1, lambda x: x >= 1, "be at least 1")
    _each(config, _POSITIVE, lambda x: x > 0, "be positive")
    _each(config, _NOT_NEGATIVE, lambda x: x >= 0, "not be negative")
    _each(config, ("noise", "alpha"), lambda x: 0 <= x <= 1, "lie in [0, 1]")
    _each(config, ("momentum", "ema"), lambda x: 0 <= x < 1, "lie in [0, 1)")
    _each(config, ("decay_rate",), lambda x: 0 < x <= 1, "lie in (0, 1]")
    _each(config, ("loss_weights",), lambda x: min(x) >= 0, "not be negative")


def check_combinations(config: Any) -> None:
    """Refuses settings that contradict each other.

    Args:
        config: A :class:`~kdlab.settings.config.Config`.

    Raises:
        ValueError: At the first contradiction.
    """
    _check_name(config)
    _check_stream(config)
    _check_schedule(config)
    if config.teacher is None and tuple(config.methods) != ("labels_only",):
        raise ValueError(
            "--teacher None needs --methods labels_only: no other method can do."
        )
    if config.batch_size % config.accumulate:
        raise ValueError(
            f"--accumulate {config.accumulate} does not divide --batch-size "
            f"{config.batch_size}; choose a divisor of it."
        )
    if config.alpha is not None and config.loss_weights is not None:
        raise ValueError(
            "--alpha and --loss-weights both set the weights of the losses; leave one "
            "out (None)."
        )
    for field, losses in _OPTIONS.items():
        if getattr(config, field) is not None and config.loss not in losses:
            raise ValueError(
                f"{flag(field)} belongs to --loss {' or '.join(losses)}, not "
                f"{config.loss!r}; give {flag(field)} None."
            )
    if "dot" in config.methods and config.clip is not None:
        raise ValueError(
            "--clip needs a combined gradient, but `dot` has two momenta instead: "
            "leave dot out of --methods, or give --clip None."
        )
    if "dot" in config.methods and not abs(config.delta) <= min(
        config.momentum, 1 - config.momentum
    ):
        raise ValueError(
            f"--delta {config.delta} takes DOT's momenta {config.momentum} ± delta out "
            f"of [0, 1]."
        )


def _check_name(config: Any) -> None:
    if ".." in Path(config.name).parts or Path(config.name).is_absolute():
        raise ValueError(
            f"--name {config.name!r} is no folder below --runs: give a name, or "
            "several with slashes between them."
        )


def _check_stream(config: Any) -> None:
    if config.streamed and (config.labels is not None or config.noise):
        raise ValueError(
            "a --dataset that is streamed is taken as it is, all of it: give "
            "--labels None --noise 0."
        )


def _check_schedule(config: Any) -> None:
    decays = config.decay_epochs
    if config.schedule == "cosine" and decays:
        raise ValueError("--decay-epochs belongs to --schedule steps.")
    if config.schedule == "steps" and not decays:
        raise ValueError("--schedule steps needs --decay-epochs, such as 150 180 210.")
    if config.warmup_epochs >= config.epochs:
        raise ValueError(
            f"--warmup-epochs {config.warmup_epochs} must end before --epochs "
            f"{config.epochs}."
        )
    bounds = (config.warmup_epochs, *decays, config.epochs)
    if decays and not all(a < b for a, b in pairwise(bounds)):
        raise ValueError(
            f"--decay-epochs {' '.join(map(str, decays))} must rise, after the warm-up "
            f"and below --epochs {config.epochs}; give those of the shorter training."
        )


_AT_LEAST_1 = (
    *("seeds", "epochs", "teacher_epochs", "batch_size"),
    *("labels", "accumulate", "batch_norm_group", "max_blocks", "image_size"),
)
_POSITIVE = (
    *("learning_rate", "temperature", "student_temperature"),
    *("clip", "loss_beta"),
)
_NOT_NEGATIVE = (
    *("weight_decay", "warmup_epochs", "loss_warmup"),
    *("timing_rounds", "checkpoint_seconds", "workers"),
)
# `kd` with other distances, and with a temperature of the student's own.
SOFT = ("soft_ce", "soft_kl", "soft_mse")
_OPTIONS = {
    "student_temperature": SOFT,
    "loss_beta": ("dkd", "reviewkd_pp"),
    "loss_warmup": ("dkd", "reviewkd", "reviewkd_pp"),
}


def _each(config: Any, fields: Iterable[str], valid: Any, rule: str) -> None:
    for field in fields:
        value = getattr(config, field)
        # NaN fails every comparison.
        if value is not None and not valid(value):
            raise ValueError(f"{flag(field)} must {rule}, got {value}.")


def flag(field: str) -> str:
    """The option of a setting: errors name what a user types."""
    return f"--{field.replace('_', '-')}"


def differences(earlier: dict, now: dict) -> str:
    """Which settings are not what they were, in words; empty if none."""
    return "; ".join(
        f"{name} was {earlier.get(name)!r}, is {value!r}"
        for name, value in now.items()
        if earlier.get(name) != value
    )
