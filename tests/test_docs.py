"""Every public name is documented."""

import pathlib

import pytest

import kdopt

API = (pathlib.Path(__file__).parent.parent / "docs" / "api.md").read_text()


@pytest.mark.parametrize("name", kdopt.__all__)
def test_public_name_is_in_the_reference(name):
    is_module = hasattr(getattr(kdopt, name), "__path__")
    assert is_module or f":: {name}\n" in API or f":: kdopt.{name}\n" in API
