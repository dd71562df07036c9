"""A table, for a terminal and as Markdown."""

import dataclasses
from collections.abc import Sequence

from rich.table import Table


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        title: Its heading.
        columns: Names of the columns.
        rows: The cells.
        note: What is below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""

    def rich(self) -> Table:
        """For a terminal."""
        view = Table(title=self.title, caption=self.note, title_justify="left")
        for i, column in enumerate(self.columns):
            view.add_column(column, justify="right" if i > 1 else "left")
        for row in self.rows:
            view.add_row(*row)
        return view

    def markdown(self) -> str:
        """For a file."""
        rule = "|" + "---|" * 2 + "---:|" * (len(self.columns) - 2)
        lines = [_line(self.columns), rule, *map(_line, self.rows)]
        return "\n".join([f"### {self.title}", "", *lines, "", self.note, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
