"""Prints the table of models."""

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
        shapes = [feature.shape for feature in counts.outputs.features]
        rows.append(
            (
                name,
                str(spec.num_classes),
                "x".join(map(str, spec.image_shape)),
                f"{counts.parameters:,}",
                f"{counts.multiply_adds / 1e6:,.1f} M",
                " ".join(f"{channels}x{height}" for _, height, _, channels in shapes),
            )
        )
    head = (
        *("model", "classes", "image", "parameters", "multiply-adds"),
        "features (channels x height)",
    )
    view = console or Console()
    display.print_table(view, head, rows, title="Models", text=(0, 2, 5), whole=False)
