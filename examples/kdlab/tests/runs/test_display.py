"""Tables and paths on terminals of any width."""

import io

import pytest
from rich.console import Console

from kdlab.basics import display
from kdlab.experiment.make import make_config
from kdlab.models import table as models_table
from kdlab.papers.recipes import RECIPES
from kdlab.papers.recipes.listing import print_recipes
from kdlab.runs import compare
from kdlab.runs.table import make_columns

HEAD = ("run", *(column.head for column in make_columns()), "step time")
ROWS = [
    [f"runs/experiment number {i}/dto_kd", *["93.17 ± 0.25"] * len(HEAD[1:])]
    for i in range(3)
]
PATH = "/home/somebody/a folder with spaces/[brackets]/" + 30 * "deep/" + "image.png"


def console(width):
    return Console(file=io.StringIO(), width=width)


def shown(console):
    return console.file.getvalue()


@pytest.mark.parametrize("width", [20, 80, 300])
def test_a_line_is_never_broken_and_no_markup(width):
    view = console(width)
    display.print_line(view, f"{PATH} is damaged", label="error:", style="bold red")
    display.print_path(view, PATH)
    assert shown(view).splitlines() == [
        f"error: {PATH} is damaged",
        f"Written: {PATH}",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_every_cell_of_a_table_is_there(width):
    view = console(width)
    display.print_table(view, HEAD, ROWS)
    lines = shown(view).splitlines()
    for row in ROWS:
        assert sum(row[0] in line for line in lines) >= 1
    assert shown(view).count(ROWS[0][1]) == len(ROWS) * (len(HEAD) - 1)
    assert "…" not in shown(view)
    least = 1 + 3 + len(ROWS[0][0]) + 3 + len(ROWS[0][1])
    assert max(map(len, lines)) <= max(width, least)


@pytest.mark.parametrize("width", [80, 120])
def test_recipes_show_names_and_numbers_at_any_width(width):
    view = console(width)
    print_recipes(view)
    lines = shown(view).splitlines()
    for name, recipe in RECIPES.items():
        number = "" if recipe.published is None else f"{recipe.published:.2f}"
        assert any(f"│ {name} " in line and number in line for line in lines), name
    table = [line for line in lines if "│" in line or "━" in line]
    assert max(map(len, table)) <= width
    absent = any("In a wider terminal: source." in line for line in lines)
    assert absent == (width == 80)


def test_models_at_80_columns(monkeypatch):
    chosen = {name: models_table.MODELS[name] for name in ("mlp", "resnet8")}
    monkeypatch.setattr(models_table, "MODELS", chosen)
    view = console(80)
    models_table.print_table(view)
    assert "83,892" in shown(view) and "12.5 M" in shown(view)
    assert "In a wider terminal: features" in shown(view)


def test_paths_in_a_comparison_are_whole(tmp_path):
    settings = [{"data_dir": PATH}, {"data_dir": "other"}]
    groups = [
        compare.Group(f"{i}/kd", [{"accuracy/last": 0.5}], str(i), setting)
        for i, setting in enumerate(settings)
    ]
    view = console(80)
    for title, head, rows in compare.make_tables(compare.Comparison(groups, [])):
        display.print_table(view, head, rows, title=title)
    assert PATH in shown(view)


def test_the_table_of_an_experiment_names_its_data(tmp_path):
    from kdlab.runs import table

    view = console(60)
    config = make_config(dataset=f"folder:{PATH}", runs=tmp_path)
    table.show(config, view)
    assert PATH in shown(view)
