"""Recipes: the experiments of the papers' tables as data, one module per table."""

import difflib
from pathlib import Path

from kdlab.papers.recipes import (
    cifar100_dot,
    cifar100_dto,
    imagenet,
    imagenet_deit,
    sweeps,
    teachers,
    tiny_imagenet_dot,
)
from kdlab.papers.recipes._file import read
from kdlab.papers.recipes._recipe import Recipe as Recipe

RECIPES: dict[str, Recipe] = {}
for _table in (
    cifar100_dot,
    cifar100_dto,
    tiny_imagenet_dot,
    imagenet,
    imagenet_deit,
    sweeps,
    teachers,
):
    for _name, _recipe in _table.RECIPES.items():
        assert _name not in RECIPES, _name
        RECIPES[_name] = _recipe


def find(name: str) -> list[Recipe]:
    """Finds recipes by name.

    Args:
        name: Name of a recipe, prefix of several names up to a slash, or path of a JSON
            file of settings.

    Returns:
        The matching recipes in order.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is no such recipe; the message names the closest ones.

    Examples:
        >>> from kdlab.papers import recipes
        >>> len(recipes.find("cifar100/sweeps/delta/"))
        9
    """
    if name in RECIPES:
        return [RECIPES[name]]
    if name.endswith(".json"):
        return [read(Path(name).expanduser())]
    chosen = [r for key, r in RECIPES.items() if key.startswith(f"{name.strip('/')}/")]
    if not chosen:
        close = difflib.get_close_matches(name, RECIPES, n=4, cutoff=0.3)
        raise ValueError(
            f"no recipe {name!r}; the closest are {', '.join(close) or 'none'}. "
            "`kdlab recipes` lists all."
        )
    return chosen
