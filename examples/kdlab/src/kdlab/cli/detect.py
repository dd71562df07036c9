"""``kdlab detect``: distils detectors, from defaults, a recipe, and options."""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from rich.console import Console

from kdlab.basics import display
from kdlab.detection import command
from kdlab.detection.config import DetectConfig
from kdlab.papers.recipes import coco

RecipeName: Any = tyro.extras.literal_type_from_choices(tuple(coco.DETECTION))


@dataclasses.dataclass(frozen=True)
class Command:
    """Distil detectors: a large ViDT teaches a smaller one.

    By default on scenes of real digits that are written first, on a CPU. The teacher is
    trained on all scenes, the students on fewer, by each method and seed; then their
    average precision is compared. The same command resumes.
    """

    recipe: Annotated[RecipeName | None, tyro.conf.arg(metavar="NAME")] = None
    """An experiment of a paper, whose values become the defaults of all other options.
    `kdlab recipes coco/` lists them."""
    config: DetectConfig = dataclasses.field(default_factory=DetectConfig)


def parse(arguments: Sequence[str], prog: str) -> Command:
    """Parses a command line.

    Raises:
        ValueError: If there is no such recipe, or a setting is invalid.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", default=None)
    first, rest = parser.parse_known_args(arguments)
    config = DetectConfig()
    if first.recipe is not None:
        config = coco.find(first.recipe).config
    return tyro.cli(
        Command,
        prog=prog,
        args=rest,
        default=Command(first.recipe, config),
        config=(tyro.conf.OmitArgPrefixes,),
    )


def run(arguments: Sequence[str], prog: str, console: Console) -> None:
    """Runs the experiment of a command line.

    Raises:
        ValueError: If a setting is invalid.
        FileNotFoundError: If COCO or the weights of the teacher are missing.
    """
    chosen = parse(arguments, prog)
    if chosen.recipe is not None:
        recipe = coco.find(chosen.recipe)
        number = f"{recipe.published} AP" if recipe.published else "no published number"
        text = f"{number} ({recipe.source}). {recipe.note}".strip()
        display.print_line(console, text, label=f"{recipe.name}:", style="bold")
    command.run(chosen.config, console)
