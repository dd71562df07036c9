"""Names are documented, programs are complete, figures of the losses can be drawn."""

import ast
import builtins
import doctest
import importlib.util
import pathlib
import re

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import optax
import pytest

import kdopt
from docs import dropped_rate, raised_losses
from kdlab.train.methods import Numbers
from kdlab.train.observe import seen_in

DOCS = pathlib.Path(__file__).parent.parent / "docs"
API = (DOCS / "api.md").read_text()


@pytest.mark.parametrize("name", kdopt.__all__)
def test_public_name_is_in_the_reference(name):
    is_module = hasattr(getattr(kdopt, name), "__path__")
    assert is_module or f":: {name}\n" in API or f":: kdopt.{name}\n" in API


def test_layers_of_the_design_are_the_modules():
    listed = re.findall(r"(?m)^  (\w+)(?:\.py|/)", (DOCS / "design.md").read_text())
    listed += re.findall(
        r"(?m)^  _keys\.py, (\w+)\.py", (DOCS / "design.md").read_text()
    )
    there = {path.stem for path in pathlib.Path(kdopt.__file__).parent.iterdir()}
    assert sorted(listed) == sorted(there - {"__pycache__", "py"})


def programs():
    """The sections of docs/use_with.md that hold a program, by title."""
    sections = re.split(r"(?m)^#{2,3} ", (DOCS / "use_with.md").read_text())[1:]
    examples = {
        section.splitlines()[0]: doctest.DocTestParser().get_examples(section)
        for section in sections
    }
    return {
        title: "".join(e.source for e in found)
        for title, found in examples.items()
        if found
    }


@pytest.mark.parametrize("title", programs())
def test_program_is_complete_and_short(title):
    """Pytest runs a page as one program; here no name may come from an earlier one."""
    source = programs()[title]
    nodes = list(ast.walk(ast.parse(source)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    known = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    known |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    known |= {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            known |= {(a.asname or a.name).split(".")[0] for a in node.names}
    assert {node.id for node in names} <= known | set(dir(builtins))
    assert len(source.splitlines()) < 40


def test_rates_of_dropped_losses_are_in_the_state(standard):
    """The counts of docs/dropped_rate.py, which itself trains for minutes."""
    plan = dropped_rate.dto_kd(Numbers(), optax.constant_schedule(0.1))
    params, small = {"w": jnp.zeros(2)}, np.float32([1, 0.5])
    grads = {"w": 3 * small}, {"w": small}  # parallel: the longer one is dropped
    state = jax.jit(plan.tx.init)(params)
    values = np.ones(2, np.float32)
    _, state = jax.jit(plan.tx.update)(grads, state, params, values=values)
    metrics = optax.tree.get(state, "metrics")
    rates = [metrics[f"dropped_rate/{name}"] for name in dropped_rate.LOSSES]
    assert rates == [1, 0]


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


def test_rises_of_losses_are_in_the_logs(standard):
    """The counts of docs/raised_losses.py, which itself trains for minutes."""
    numbers = Numbers(optimizer="adamw")
    schedule = optax.constant_schedule(0.1)
    params, values = {"w": jnp.zeros(2)}, np.ones(2, np.float32)
    plan = raised_losses.plan(lambda: kdopt.linear([1.0, 0.0]), act=False)
    tx = plan(numbers, schedule).tx
    grads = {"w": np.float32([1, 0])}, {"w": np.float32([-1, 0])}
    _, state = jax.jit(tx.update)(grads, tx.init(params), params, values=values)
    seen = seen_in(state, (), values)
    rises = [seen[f"update/rises/{name}"] for name in raised_losses.LOSSES]
    assert rises == [0, 1]
