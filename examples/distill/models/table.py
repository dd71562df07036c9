"""Prints the table of models."""

from rich.console import Console
from rich.table import Table

from examples.distill.models._summary import summary
from examples.distill.models._zoo import MODELS


def print_table(console: Console | None = None) -> None:
    """Prints every model with its data set's shapes, its size and its stage maps.

    Args:
        console: Where to print; standard output if None.
    """
    table = Table(title="Models")
    for column in ("model", "classes", "image"):
        table.add_column(column)
    table.add_column("parameters", justify="right")
    table.add_column("multiply-adds", justify="right")
    table.add_column("features (channels x height)")
    for name, spec in MODELS.items():
        counts = summary(name)
        shapes = [feature.shape for feature in counts.outputs.features]
        table.add_row(
            name,
            str(spec.num_classes),
            "x".join(map(str, spec.image_shape)),
            f"{counts.parameters:,}",
            f"{counts.multiply_adds / 1e6:,.1f} M",
            " ".join(f"{channels}x{height}" for _, height, _, channels in shapes),
        )
    (console or Console()).print(table)
