"""The sizes of the networks of a text task."""

import re
from pathlib import Path
from typing import NamedTuple


class Networks(NamedTuple):
    """The networks of a text task.

    Attributes:
        student: Depth and width of the student, such as ``2x64``.
        teacher: Depth and width of the teacher.
        teacher_weights: Folder of a checkpoint from which the teacher starts; its
            tokenizer serves both networks.
    """

    student: str = "2x64"
    teacher: str = "2x128"
    teacher_weights: Path | None = None


def parse_size(name: str) -> tuple[int, int]:
    """Returns depth and width of a network, given as ``2x64``.

    Raises:
        ValueError: If the name has another form, or the heads cannot share the width.
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", name)
    if not match or int(match[2]) % count_heads(int(match[2])):
        raise ValueError(
            f"--student {name!r}: expected DEPTHxWIDTH, such as 2x64, with a width "
            "that is a multiple of its number of heads (width / 64, at least 2)."
        )
    return int(match[1]), int(match[2])


def count_heads(width: int) -> int:
    """Returns the number of attention heads of a width."""
    return max(2, width // 64)
