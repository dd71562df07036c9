"""Prepare a data set: ``python -m examples.distill.data NAME --data-dir D``."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from examples.distill import display
from examples.distill.data.prepare import prepare
from examples.distill.reading import explain


def main() -> int:
    """Parse the command line, prepare, say where; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.distill.data",
        description="Prepare a data set once, for training without TensorFlow.",
    )
    parser.add_argument("name", help="tiny_imagenet, imagenet2012 or a name of TFDS")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--manual-dir", type=Path, help="archives downloaded by hand")
    arguments = vars(parser.parse_args())
    try:
        print(prepare(**arguments))
    except (ValueError, OSError, ImportError) as error:
        display.line(Console(), explain(error), label="error:", style="bold red")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
