"""Prints the table of models."""

import itertools
from collections.abc import Iterable, Iterator

from rich.console import Console

from kdlab.basics import display
from kdlab.models._summary import summary
from kdlab.models._zoo import MODELS


def print_table(console: Console | None = None) -> None:
    """Prints the shapes, size and stage maps of every model.

    Args:
        console: Where to print; None: standard output.
    """
    rows = []
    for name, spec in MODELS.items():
        counts = summary(name)
        maps = [
            f"{feature.shape[3]}x{feature.shape[1]}"
            for feature in counts.outputs.features
        ]
        rows.append(
            (
                name,
                str(spec.num_classes),
                "x".join(map(str, spec.image_shape)),
                f"{counts.parameters:,}",
                f"{counts.multiply_adds / 1e6:,.1f} M",
                " ".join(_shorten(maps)),
            )
        )
    head = (
        *("model", "classes", "image", "parameters", "multiply-adds"),
        "features (channels x height)",
    )
    view = console or Console()
    display.print_table(view, head, rows, title="Models", text=(0, 2, 5), whole=False)


def _shorten(maps: Iterable[str]) -> Iterator[str]:
    """Counts equal maps in a row, as transformers have them.

    Examples:
        >>> " ".join(_shorten(["16x32", "16x32", "8x8", *["4x4"] * 13]))
        '16x32 16x32 8x8 4x4 (13)'
    """
    for text, equal in itertools.groupby(maps):
        count = len(list(equal))
        yield from [f"{text} ({count})"] if count > 2 else [text] * count
