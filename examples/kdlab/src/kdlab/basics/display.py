"""Lines and tables: for terminals of any width, where paths stay whole; in Markdown."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.segment import SegmentLines
from rich.table import Table
from rich.text import Text

_BORDER = 3  # of each column, and one more for the table


def print_line(
    console: Console, text: object, *, label: str = "", style: str = ""
) -> None:
    """Prints a text as one line, however long, so that paths in it can be copied.

    Args:
        console: Where to print.
        text: What to print; not interpreted as markup.
        label: Printed before it.
        style: Style of the label.
    """
    content = Text.assemble((label, style), " " * bool(label), str(text))
    console.print(content, soft_wrap=True)


def print_path(console: Console, path: Path, label: str = "Written") -> None:
    """Prints the path of a file."""
    print_line(console, path, label=f"{label}:")


def print_table(
    console: Console,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    text: Collection[int] = (0,),
    whole: bool = True,
) -> None:
    """Prints a table whose cells are never wrapped.

    Args:
        console: Where to print.
        head: Names of the columns, the important ones first.
        rows: The cells.
        title: Title of the table.
        text: Positions of the columns to align left instead of right.
        whole: Whether columns that do not fit go to further tables below, each of
            which repeats the first column. Otherwise a line names them.
    """
    groups = group_columns(head, rows, console.width)
    for group in groups if whole else groups[:1]:
        view = Table(title=title or None, title_justify="left")
        for i in group:
            justify = "left" if i in text else "right"
            view.add_column(head[i], justify=justify, width=_cell(head, rows, i))
        for row in rows:
            view.add_row(*(Text(row[i], no_wrap=True) for i in group))
        needed = max(console.width, _width(head, rows, group))
        options = console.options.update(width=needed)
        lines = console.render_lines(view, options, pad=False)
        console.print(SegmentLines(lines, new_lines=True), soft_wrap=True, end="")
    if not whole and len(groups) > 1:
        absent = ", ".join(head[i] for group in groups[1:] for i in group[1:])
        print_line(console, f"In a wider terminal: {absent}.")


def group_columns(
    head: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> list[list[int]]:
    """Divides the columns of a table among as few tables as fit a width.

    Returns:
        Column positions of each table; the first column is in all of them.

    Examples:
        >>> head, rows = ["name", "last epoch", "best epoch"], [["kd", "90.0", "91.0"]]
        >>> group_columns(head, rows, 20)
        [[0, 1], [0, 2]]
    """
    groups: list[list[int]] = [[0]]
    for i in range(1, len(head)):
        if len(groups[-1]) > 1 and _width(head, rows, [*groups[-1], i]) > width:
            groups.append([0])
        groups[-1].append(i)
    return groups


def format_markdown(
    head: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int]
) -> list[str]:
    """Returns the lines of a Markdown table; columns not in `left` align right."""
    rule = ["---" if i in left else "---:" for i in range(len(head))]
    return ["| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)]


def _width(
    head: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[int]
) -> int:
    return 1 + sum(_BORDER + _cell(head, rows, i) for i in columns)


def _cell(head: Sequence[str], rows: Sequence[Sequence[str]], column: int) -> int:
    """Returns the width of a column whose head may wrap between words."""
    return max(cell_len(x) for x in (*head[column].split(), *(r[column] for r in rows)))
