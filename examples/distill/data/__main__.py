"""Prepare a data set: ``python -m examples.distill.data NAME --data-dir D``."""

import argparse
from pathlib import Path

from examples.distill.data.prepare import prepare


def main() -> None:
    """Parse the command line, prepare, say where."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.distill.data",
        description="Prepare a data set once, for training without TensorFlow.",
    )
    parser.add_argument("name", help="tiny_imagenet, imagenet2012 or a name of TFDS")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--manual-dir", type=Path, help="archives downloaded by hand")
    print(prepare(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
