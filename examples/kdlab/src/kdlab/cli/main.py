"""The command ``kdlab`` and its subcommands."""

import signal
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import jax
import tyro
from rich.console import Console

from kdlab.basics import display
from kdlab.basics.hint import did_you_mean
from kdlab.basics.reading import UserError, explain
from kdlab.devices.interrupt import TerminatedError

PROGRAM = "kdlab"
T = TypeVar("T")


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        summary: Summary for ``kdlab --help``.
        run: Runs the command with the arguments after its name.
    """

    summary: str
    run: Callable[[Sequence[str], Console], object]


def parse(kind: type[T], name: str, arguments: Sequence[str]) -> T:
    """Parses the arguments of a command, with options that do not name their part."""
    return tyro.cli(
        kind,
        prog=f"{PROGRAM} {name}",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes,),
    )


# Each command imports only what it needs, so that the others start quickly.


def _distill(arguments: Sequence[str], console: Console) -> None:
    from kdlab.cli import distill

    distill.run(arguments, f"{PROGRAM} distill", console)


def _demo(arguments: Sequence[str], console: Console) -> None:
    from kdlab.regret import demo

    config = parse(demo.DemoConfig, "demo", arguments)
    demo.run(config, console)


def _losses(arguments: Sequence[str], console: Console) -> None:
    from kdlab.cli.distill import start
    from kdlab.experiment import loss_table

    config = parse(loss_table.LossesConfig, "losses", arguments)
    start(config.execution, console)
    loss_table.run(config, console)


def _models(_: Sequence[str], console: Console) -> None:
    from kdlab.models.table import print_table

    print_table(console)


def _recipes(arguments: Sequence[str], console: Console) -> None:
    from kdlab.papers.recipes.listing import print_recipes, to_markdown

    if list(arguments) == ["--markdown"]:
        print("\n".join(to_markdown()))
    else:
        print_recipes(console, *arguments[:1])


def _claims(arguments: Sequence[str], console: Console) -> None:
    from kdlab.papers import claims

    config = parse(claims.ClaimsConfig, "claims", arguments)
    claims.run(config, console)


def _dot_schedule(arguments: Sequence[str], console: Console) -> None:
    from kdlab.papers.claims import schedule

    config = parse(schedule.ScheduleConfig, "dot-schedule", arguments)
    schedule.run(config, console)


def _figures(arguments: Sequence[str], console: Console) -> None:
    from kdlab.papers import gallery

    config = parse(gallery.FiguresConfig, "figures", arguments)
    gallery.run(config, console)


def _report(arguments: Sequence[str], console: Console) -> None:
    from kdlab.report import command

    config = parse(command.ReportConfig, "report", arguments)
    command.run(config, console)


def _compare(arguments: Sequence[str], console: Console) -> None:
    from kdlab.runs import compare

    config = parse(compare.CompareConfig, "compare", arguments)
    compare.run(config, console)


def _study(arguments: Sequence[str], console: Console) -> None:
    from kdlab import study

    study.main(arguments, prog=f"{PROGRAM} study", console=console)


def _regret(arguments: Sequence[str], console: Console) -> None:
    from kdlab.regret import command

    config = parse(command.RegretConfig, "regret", arguments)
    command.run(config, console)


def _detect(arguments: Sequence[str], console: Console) -> None:
    from kdlab.cli import detect

    detect.run(arguments, f"{PROGRAM} detect", console)


def _make_scenes(arguments: Sequence[str], console: Console) -> None:
    from kdlab.detection import command

    config = parse(command.SceneConfig, "make-scenes", arguments)
    command.make_scenes(config, console)


def _prepare(arguments: Sequence[str], _: Console) -> None:
    from kdlab.cli import prepare

    prepare.run(arguments, f"{PROGRAM} prepare")


COMMANDS = {
    "demo": Command("distil without knowing the right weight (4 minutes)", _demo),
    "distill": Command("distil students; by default on 5,000 digits", _distill),
    "losses": Command("compare distillation losses", _losses),
    "models": Command("list the networks", _models),
    "recipes": Command("list the experiments of the papers", _recipes),
    "claims": Command("test the claims of the papers (20 minutes)", _claims),
    "dot-schedule": Command("test DOT at the schedule of its paper", _dot_schedule),
    "figures": Command("draw the figures of the papers", _figures),
    "report": Command("write one HTML page about finished runs", _report),
    "compare": Command("tabulate finished runs", _compare),
    "study": Command("find out which settings matter on a task", _study),
    "regret": Command("compare methods when the right weight is unknown", _regret),
    "detect": Command("distil detectors; by default on scenes of digits", _detect),
    "make-scenes": Command("write scenes of digits, as COCO does", _make_scenes),
    "prepare": Command("prepare a data set of the TFDS catalogue", _prepare),
}


def main() -> int:
    """Runs the command line; returns the exit code."""
    # On CPU it compiles in a third of the time of the default generator.
    jax.config.update("jax_default_prng_impl", "rbg")
    console = Console()
    name, *arguments = sys.argv[1:] or ["--help"]
    try:
        if name in ("--help", "-h"):
            print(usage())
            return 0
        _find(name).run(arguments, console)
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        display.print_line(console, explain(error), label="error:", style="bold red")
        return 2
    except TerminatedError:
        console.print("Terminated and saved; the same command resumes from here.")
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        console.print("Interrupted; the same command resumes from here.")
        return 130
    return 0


def usage() -> str:
    """Returns the help text of the program, one command per line."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {c.summary}" for name, c in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [options]",
            "",
            "Knowledge distillation with several losses, from data to figures.",
            "",
            *lines,
            "",
            f"{PROGRAM} COMMAND --help explains the options of a command.",
        ]
    )


def _find(name: str) -> Command:
    if name in COMMANDS:
        return COMMANDS[name]
    raise UserError(
        f"{name!r} is not a command of {PROGRAM}: {did_you_mean(name, COMMANDS)}"
        f"There are {', '.join(COMMANDS)}."
    )


if __name__ == "__main__":
    sys.exit(main())
