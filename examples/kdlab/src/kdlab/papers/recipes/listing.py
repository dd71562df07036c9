"""Lists the recipes, for a terminal and for the documentation."""

from collections.abc import Iterator, Sequence

from rich.console import Console

from kdlab.basics import display
from kdlab.papers.recipes import RECIPES, Recipe, find
from kdlab.papers.recipes.coco import DETECTION, DetectionRecipe


def print_recipes(console: Console, beginning: str | None = None) -> None:
    """Prints recipes with their published numbers and estimated times.

    Args:
        console: Where to print.
        beginning: Prefix of the names up to a slash; None: all.
    """
    detection = [x for x in DETECTION.values() if x.name.startswith(beginning or "")]
    if beginning and detection:
        _print_detection(console, detection)
        return
    found = find(beginning) if beginning else RECIPES.values()
    rows = []
    for name, number, source, hours in map(_row, found):
        rows.append((name, number, hours, source))
    head = ("name", "top-1 (%)", "hours >=", "source")
    display.print_table(console, head, rows, title="Recipes", text=(0, 3), whole=False)
    display.print_line(
        console,
        "Hours per seed on one A100 at 30 % of its peak: estimated from multiply-adds, "
        "not measured, and far too low for small networks. To run one: "
        "kdlab distill --recipe NAME",
    )
    if not beginning:
        _print_detection(console, detection)


def _print_detection(console: Console, recipes: Sequence[DetectionRecipe]) -> None:
    rows = [
        (name, number, hours, source)
        for name, number, source, hours in map(_row, recipes)
    ]
    head = ("name", "AP (%)", "hours >=", "source")
    title = "Recipes of detectors"
    display.print_table(console, head, rows, title=title, text=(0, 3), whole=False)
    display.print_line(console, "To run one: kdlab detect --recipe NAME")


def detection_to_markdown() -> Iterator[str]:
    """Yields the lines of the table of the recipes of detectors."""
    yield "| recipe | published AP (%) | source | hours, at least |"
    yield "|---|---:|---|---:|"
    for recipe in DETECTION.values():
        name, *rest = _row(recipe)
        yield " | ".join([f"| `{name}`", *rest]) + " |"


def to_markdown() -> Iterator[str]:
    """Yields the lines of the table of all recipes."""
    yield "| recipe | published (%) | source | hours, at least |"
    yield "|---|---:|---|---:|"
    for recipe in RECIPES.values():
        name, *rest = _row(recipe)
        yield " | ".join([f"| `{name}`", *rest]) + " |"


def _row(recipe: Recipe | DetectionRecipe) -> tuple[str, ...]:
    digits = 1 if isinstance(recipe, DetectionRecipe) else 2
    number = "" if recipe.published is None else f"{recipe.published:.{digits}f}"
    hours = f"{recipe.wall_time:.{'0f' if recipe.wall_time >= 100 else '2g'}}"
    return recipe.name, number, recipe.source, hours
