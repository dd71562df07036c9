"""Which distillation settings matter on a task, and what a bad choice of them costs."""

from collections.abc import Sequence

import tyro
from rich.console import Console

from kdlab.study.config import StudyConfig


def main(arguments: Sequence[str], *, prog: str, console: Console) -> None:
    """Runs the command line of a study.

    Args:
        arguments: What follows the name of the command.
        prog: Name of the program, for its help.
        console: Where to print.

    Raises:
        ValueError: If a setting is wrong; the message has the right ones.
        ModuleNotFoundError: If the extra ``study`` is not installed.
    """
    config = tyro.cli(StudyConfig, prog=prog, args=arguments)
    try:
        from kdlab.study import command
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"a study needs the package {error.name}: pip install {error.name}"
        ) from error
    command.run(config, console)
