"""Studies of which distillation settings matter, and what a bad choice costs."""

from collections.abc import Sequence

import tyro
from rich.console import Console

from kdlab.study.config import StudyConfig


def main(arguments: Sequence[str], *, prog: str, console: Console) -> None:
    """Runs the command line of a study.

    Args:
        arguments: The arguments after the name of the command.
        prog: Name of the program.
        console: Where to print.

    Raises:
        ValueError: If a setting is invalid; the message lists the valid ones.
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
