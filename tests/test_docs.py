"""Every public name is documented, and every picture of the losses can be drawn."""

import importlib.util
import pathlib
import re

import matplotlib.image
import pytest

import kdopt

DOCS = pathlib.Path(__file__).parent.parent / "docs"
API = (DOCS / "api.md").read_text()


@pytest.mark.parametrize("name", kdopt.__all__)
def test_public_name_is_in_the_reference(name):
    is_module = hasattr(getattr(kdopt, name), "__path__")
    assert is_module or f":: {name}\n" in API or f":: kdopt.{name}\n" in API


def test_pictures_of_the_losses(tmp_path, standard):
    spec = importlib.util.spec_from_file_location("figures", DOCS / "figures.py")
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    figures.main(tmp_path)
    drawn = {file.name for file in tmp_path.iterdir()}
    assert drawn == set(
        re.findall(r"losses-\w+\.png", (DOCS / "losses.md").read_text())
    )
    for name in drawn:
        sizes = [
            matplotlib.image.imread(folder / name).shape
            for folder in (tmp_path, DOCS / "images")
        ]
        assert sizes[0] == sizes[1]
