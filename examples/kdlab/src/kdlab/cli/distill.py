"""``kdlab distill``: runs experiments from defaults, a recipe, and options."""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import tyro
from rich.console import Console

from kdlab.basics import display
from kdlab.devices import mesh
from kdlab.experiment import run as experiment
from kdlab.experiment.make import check_names
from kdlab.papers.recipes import RECIPES, Recipe, find, smoke
from kdlab.papers.recipes._recipe import keep_batch
from kdlab.runs import files
from kdlab.settings.config import Config, configure
from kdlab.settings.parts import Execution

RecipeName: Any = tyro.extras.literal_type_from_choices(tuple(RECIPES))


@dataclasses.dataclass(frozen=True)
class Command:
    """Distil a student with several methods and compare them.

    The defaults are a small experiment on 5,000 digits: the teacher is trained on all
    labels, the student on 400, of which 40 % are replaced at random so that labels and
    teacher really conflict. It takes about four minutes on two cores.

    Options to try: ``--noise 0`` (clean labels), ``--labels 1000``, ``--dataset
    fashion_mnist``. Other commands: ``recipes`` lists the experiments of the papers,
    ``models`` the networks, ``compare`` tabulates finished runs, ``losses`` compares
    distillation losses, ``kdlab prepare`` prepares data sets.
    """

    recipe: Annotated[RecipeName | None, tyro.conf.arg(metavar="NAME")] = None
    """An experiment of the papers, whose values become the defaults of all other
    options (shown by --recipe NAME --help). A prefix of names up to a slash runs all of
    them in turn. A JSON file of settings is accepted as well."""
    smoke: bool = False
    """Run for seconds, with small sizes and synthetic images, to see if it works."""
    config: Config = dataclasses.field(default_factory=Config)


def parse(
    arguments: Sequence[str], prog: str
) -> Iterator[tuple[Recipe | None, Config]]:
    """Parses a command line to experiments.

    Args:
        arguments: The arguments after the name of the program.
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
            # A file is not among the choices.
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
        chosen = command.config
        if recipe is not None and not first.smoke:
            chosen = keep_batch(recipe, chosen)
        yield recipe, check_names(chosen)


def run(arguments: Sequence[str], prog: str, console: Console) -> None:
    """Runs the experiments of a command line, after parsing all of it.

    Args:
        arguments: The arguments after the name of the program.
        prog: Name of the program.
        console: Terminal for progress and tables.

    Raises:
        ValueError: If a setting is invalid.
        FileNotFoundError: If a data set or the weights of a teacher are missing.
    """
    experiments = list(parse(arguments, prog))
    start(experiments[0][1].execution, console)
    for recipe, config in experiments:
        if recipe is not None:
            display.print_line(
                console, _heading(recipe), label=f"{recipe.name}:", style="bold"
            )
        experiment.run(with_teacher(recipe, config), console)


def start(execution: Execution, console: Console) -> None:
    """Connects the processes of a training, of which only the first one prints.

    Raises:
        ValueError: If the settings for that are incomplete.
    """
    mesh.start_processes(
        execution.coordinator, execution.num_processes, execution.process_id
    )
    console.quiet = console.quiet or not mesh.is_first()


def with_teacher(recipe: Recipe | None, config: Config) -> Config:
    """Sets the path of the weights of a recipe's teacher.

    Raises:
        FileNotFoundError: If there are none; the message says how to get them.
    """
    smoke.remove_earlier(config)
    if config.networks.teacher is None or config.networks.teacher_weights is not None:
        return config
    if config.data.dataset in (smoke.DATASET, smoke.PATCHES):
        return configure(config, teacher_weights=smoke.write_untrained_teacher(config))
    if recipe is None or config.networks.teacher != recipe.config.networks.teacher:
        return config
    path = config.execution.runs / str(recipe.teacher) / files.WEIGHTS
    if not path.exists():
        raise FileNotFoundError(
            f"the teacher {config.networks.teacher} has no weights in {path}. "
            "Train it:\n"
            f"  {RECIPES[str(recipe.teacher)].command}\nor pass a published torch.save "
            "or safetensors file by --teacher-weights FILE (see docs/recipes.md)."
        )
    return configure(config, teacher_weights=path)


def _heading(recipe: Recipe) -> str:
    published = recipe.published
    number = "no published number" if published is None else f"{published:.2f} %"
    return f"{number} ({recipe.source}). {recipe.note}".strip()
