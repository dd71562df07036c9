"""``python -m examples.distill``: distil a student by several methods and compare."""

import signal
import sys

import jax
import tyro
from rich.console import Console

from examples.distill import command, compare, display, loss_table
from examples.distill.compare import CompareConfig
from examples.distill.config import LossesConfig
from examples.distill.interrupt import TerminatedError
from examples.distill.models.table import print_table
from examples.distill.reading import explain
from examples.distill.recipes.listing import markdown, print_recipes

PROGRAM = "python -m examples.distill"


def main() -> int:
    """Runs the command line; returns the exit code."""
    # Compiles in a third of the time of the default generator, on CPU.
    jax.config.update("jax_default_prng_impl", "rbg")
    console = Console()
    arguments = sys.argv[1:]
    try:
        match arguments:
            case ["models", *_]:
                print_table(console)
            case ["recipes", "--markdown"]:
                print("\n".join(markdown()))
            case ["recipes", *rest]:
                print_recipes(console, *rest[:1])
            case ["losses", *rest]:
                settings = tyro.cli(LossesConfig, prog=f"{PROGRAM} losses", args=rest)
                command.start(settings, console)
                loss_table.run(settings, console)
            # SciPy, Jinja and Optuna are no need of the other commands.
            case ["claims", *rest]:
                from examples.distill import claims

                tested = tyro.cli(
                    claims.ClaimsConfig, prog=f"{PROGRAM} claims", args=rest
                )
                claims.run(tested, console)
            case ["figures", *rest]:
                from examples.distill.report import gallery

                drawn = tyro.cli(
                    gallery.FiguresConfig, prog=f"{PROGRAM} figures", args=rest
                )
                gallery.run(drawn, console)
            case ["report", *rest]:
                from examples.distill.report import command as report

                shown = tyro.cli(
                    report.ReportConfig, prog=f"{PROGRAM} report", args=rest
                )
                report.run(shown, console)
            case ["compare", *rest]:
                chosen = tyro.cli(CompareConfig, prog=f"{PROGRAM} compare", args=rest)
                compare.run(chosen, console)
            case ["study", *rest]:
                from examples.distill import study

                study.main(rest, prog=f"{PROGRAM} study", console=console)
            case _:
                command.run(arguments, PROGRAM, console)
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        display.line(console, explain(error), label="error:", style="bold red")
        return 2
    except TerminatedError:
        console.print("Terminated and saved; the same command goes on from here.")
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        console.print("Interrupted; the same command goes on from here.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
