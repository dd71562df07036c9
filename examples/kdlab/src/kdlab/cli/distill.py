"""The plain command: an experiment from defaults or a recipe, and its options."""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import tyro
from rich.console import Console

from kdlab.basics import display
from kdlab.devices import mesh
from kdlab.experiment import run as experiment
from kdlab.experiment.make import checked
from kdlab.papers.recipes import RECIPES, Recipe, find, smoke
from kdlab.runs import files
from kdlab.settings.config import Config, configure
from kdlab.settings.parts import Execution

RecipeName: Any = tyro.extras.literal_type_from_choices(tuple(RECIPES))


@dataclasses.dataclass(frozen=True)
class Command:
    """Distil a student by several methods and compare them.

    The defaults are the demo: 5,000 real digits; the teacher sees the labels of all
    training images, the student 400 of them with 40 % drawn again at random, so that
    labels and teacher truly conflict. About four minutes on two cores.

    Other settings: ``--noise 0`` (clean labels), ``--labels 1000``, ``--dataset
    fashion_mnist``. Other commands: ``recipes`` lists the experiments of the papers,
    ``models`` the networks, ``compare`` tabulates finished runs, ``losses`` compares
    distillation losses, ``kdlab prepare`` prepares data sets.
    """

    recipe: Annotated[RecipeName | None, tyro.conf.arg(metavar="NAME")] = None
    """An experiment of the papers: its values become the defaults of all other options
    (shown by --recipe NAME --help). The beginning of several names up to a slash runs
    them one after the other; a JSON file of settings is a recipe too."""
    smoke: bool = False
    """Shrink every size to seconds and use synthetic images: does it run at all?"""
    config: Config = dataclasses.field(default_factory=Config)


def parse(
    arguments: Sequence[str], prog: str
) -> Iterator[tuple[Recipe | None, Config]]:
    """Yields the experiments that a command line asks for.

    Args:
        arguments: What follows the name of the program.
        prog: Name of the program.

    Yields:
        The recipe, if one was named, and the settings.

    Raises:
        ValueError: If there is no such recipe.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", default=None)
    parser.add_argument("--smoke", action="store_true")
    first, rest = parser.parse_known_args(arguments)
    for recipe in [None] if first.recipe is None else find(first.recipe):
        config = Config() if recipe is None else recipe.config
        if first.smoke:
            config = smoke.shrink(config)
        default = Command(
            # That of a file is no name to choose.
            recipe=first.recipe if first.recipe in RECIPES else None,
            smoke=first.smoke,
            config=config,
        )
        command = tyro.cli(
            Command,
            prog=prog,
            args=rest,
            default=default,
            config=(tyro.conf.OmitArgPrefixes,),
        )
        yield recipe, checked(command.config)


def run(arguments: Sequence[str], prog: str, console: Console) -> None:
    """Runs the experiments of a command line, after all its errors are found.

    Args:
        arguments: What follows the name of the program.
        prog: Name of the program.
        console: Where progress and tables are shown.

    Raises:
        ValueError: If a setting is wrong.
        FileNotFoundError: If a data set or the weights of a teacher are not there.
    """
    experiments = list(parse(arguments, prog))
    start(experiments[0][1].execution, console)
    for recipe, config in experiments:
        if recipe is not None:
            display.line(
                console, _heading(recipe), label=f"{recipe.name}:", style="bold"
            )
        experiment.run(with_teacher(recipe, config), console)


def start(execution: Execution, console: Console) -> None:
    """Joins the other processes of a training, of which the first alone speaks.

    Raises:
        ValueError: If the settings say only a part of what that needs.
    """
    mesh.start_processes(
        execution.coordinator, execution.num_processes, execution.process_id
    )
    console.quiet = console.quiet or not mesh.is_first()


def with_teacher(recipe: Recipe | None, config: Config) -> Config:
    """Says where the weights of a recipe's teacher are.

    Raises:
        FileNotFoundError: If they are nowhere; the message says how to get them.
    """
    smoke.clear(config)
    if config.networks.teacher is None or config.networks.teacher_weights is not None:
        return config
    if config.data.dataset == smoke.DATASET:
        return configure(config, teacher_weights=smoke.untrained_teacher(config))
    if recipe is None or config.networks.teacher != recipe.config.networks.teacher:
        return config
    path = config.execution.runs / str(recipe.teacher) / files.WEIGHTS
    if not path.exists():
        raise FileNotFoundError(
            f"the teacher {config.networks.teacher} has no weights in {path}. "
            "Train it:\n"
            f"  {RECIPES[str(recipe.teacher)].command}\nor give a published file, of "
            "torch.save or safetensors, by --teacher-weights FILE (docs/recipes.md "
            "says which)."
        )
    return configure(config, teacher_weights=path)


def _heading(recipe: Recipe) -> str:
    published = recipe.published
    number = "no number" if published is None else f"{published:.2f} %"
    return f"{number} ({recipe.source}). {recipe.note}".strip()
