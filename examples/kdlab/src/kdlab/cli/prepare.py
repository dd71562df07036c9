"""``kdlab prepare NAME --data-dir D``: prepares a data set once."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from kdlab.data.sources.prepare import prepare


def run(arguments: Sequence[str], prog: str) -> None:
    """Parses the command line, prepares the data set and prints its folder.

    Args:
        arguments: The arguments after the name of the command.
        prog: Name of the program.

    Raises:
        ValueError: If the data set is unknown.
        ImportError: If a required package is missing.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Prepare a data set once, for training without TensorFlow.",
    )
    parser.add_argument("name", help="tiny_imagenet, imagenet2012 or a TFDS name")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument(
        "--manual-dir", type=Path, help="folder of manually downloaded archives"
    )
    print(prepare(**vars(parser.parse_args(arguments))))
