"""Tables for a terminal and as Markdown."""

import dataclasses
from collections.abc import Sequence

from rich.console import Console

from kdlab.basics import display


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        title: Title of the table.
        columns: Names of the columns.
        rows: The cells.
        note: Note below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""

    def show(self, console: Console) -> None:
        """Prints the table."""
        display.print_table(
            console, self.columns, self.rows, title=self.title, text=(0, 1)
        )
        if self.note:
            display.print_line(console, self.note)

    def markdown(self) -> str:
        """Formats the table as Markdown."""
        rule = "|" + "---|" * 2 + "---:|" * (len(self.columns) - 2)
        lines = [_line(self.columns), rule, *map(_line, self.rows)]
        return "\n".join([f"### {self.title}", "", *lines, "", self.note, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
