"""Checks of settings; each error says what was expected and what to do."""

import types
import typing
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import Any


def check_types(config: Any) -> None:
    """Refuses values whose type is not that of their field.

    The command line never produces such values, but a settings file may.

    Args:
        config: A dataclass.

    Raises:
        ValueError: At the first such value; the message says what is expected.
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


def check_range(part: Any) -> None:
    """Refuses numbers out of their range.

    Args:
        part: A dataclass of settings; fields that it lacks are not checked.

    Raises:
        ValueError: At the first such number; the message gives the range.
    """
    for fields, valid, rule in _RANGES:
        for field in fields:
            value = getattr(part, field, None)
            # NaN fails every comparison.
            if value is not None and not valid(value):
                raise ValueError(f"{flag(field)} must {rule}, got {value}.")


_AT_LEAST_1 = (
    *("seeds", "epochs", "teacher_epochs", "batch_size"),
    *("labels", "accumulate", "batch_norm_group", "max_blocks", "image_size"),
    "repeats",
)
_POSITIVE = (
    *("learning_rate", "temperature", "student_temperature"),
    *("clip", "loss_beta"),
)
_NOT_NEGATIVE = (
    *("weight_decay", "warmup_epochs", "loss_warmup"),
    *("timing_rounds", "checkpoint_seconds", "workers"),
    *("last_rate", "warmup_rate", "mixup", "cutmix"),
)
_RANGES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (_AT_LEAST_1, lambda x: x >= 1, "be at least 1"),
    (_POSITIVE, lambda x: x > 0, "be positive"),
    (_NOT_NEGATIVE, lambda x: x >= 0, "not be negative"),
    (
        ("noise", "alpha", "mix_switch", "mix_probability", "smoothing", "erasing"),
        lambda x: 0 <= x <= 1,
        "lie in [0, 1]",
    ),
    (("momentum", "ema", "drop_path"), lambda x: 0 <= x < 1, "lie in [0, 1)"),
    (("decay_rate",), lambda x: 0 < x <= 1, "lie in (0, 1]"),
    (("loss_weights",), lambda x: min(x) >= 0, "not be negative"),
)


def flag(field: str) -> str:
    """Returns the command-line option of a setting, for error messages."""
    return f"--{field.replace('_', '-')}"


def describe_changes(earlier: dict, now: dict) -> str:
    """Describes which settings changed; empty if none did."""
    return "; ".join(
        f"{name} was {earlier.get(name)!r}, is {value!r}"
        for name, value in now.items()
        if earlier.get(name) != value
    )
