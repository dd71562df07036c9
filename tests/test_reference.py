"""The summary at the top of docs/api.md, made from the functions themselves.

``python -m tests.test_reference`` writes it.
"""

import functools
import inspect
import pathlib
import re
from types import ModuleType

import jax
import jax.numpy as jnp
import optax

import kdopt
from tests._methods import METHODS, Method, num_losses, two

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "api.md"
BEGIN, END = "<!-- summary:begin -->\n", "<!-- summary:end -->"
SIZE = 1000
PARAMS = {"w": jnp.ones((20, 40)), "b": jnp.ones(200)}
KS = range(1, 5)

ROWS = {method.factory: method for method in reversed(METHODS)}
"""The first row of each factory; the others are the same with other arguments."""

ROWS |= {
    factory: Method(factory.__name__, factory, two(learning_rate=0.1), weighted=False)
    for factory in (kdopt.dot_adam, kdopt.dot_adamw, kdopt.dot_lion)
} | {
    factory: Method(
        factory.__name__, factory, num_losses(learning_rate=0.1), weighted=False
    )
    for factory in (kdopt.multi_adam, kdopt.mt_adam)
}
"""And those that are only tested through their parts."""


METHOD_MODULES = kdopt.balancers, kdopt.scalarizers


def functions(module: ModuleType) -> list[str]:
    return [n for n in module.__all__ if inspect.isfunction(getattr(module, n))]


def first_line(function) -> str:
    line = (inspect.getdoc(function) or "").splitlines()[0].removesuffix(".")
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", line).replace("``", "`")


@functools.cache
def state_after(method: Method, k: int, with_values: bool = True):
    """Returns the shapes of a state after a step on K losses."""
    extras = dict(method.extras(k)) | ({"values": jnp.ones(k)} if with_values else {})
    tx = method.make(k)
    step = functools.partial(tx.update, **extras)
    grads = method.feed((PARAMS,) * k)
    return jax.eval_shape(lambda: step(grads, tx.init(PARAMS), PARAMS)[1])


@functools.cache
def fitting(method: Method) -> list[int]:
    """Returns the numbers of losses that the method takes."""

    def fits(k: int) -> bool:
        try:
            state_after(method, k)
        except ValueError:
            return False
        return True

    return [k for k in KS if fits(k)]


def losses(method: Method) -> str:
    ks = fitting(method)
    if len(ks) == 1:
        return str(ks[0])
    assert ks == [k for k in KS if k >= ks[0]], f"{method.name} takes {ks}"
    return "any" if ks[0] == 1 else f"{ks[0]} or more"


def values(method: Method) -> str:
    try:
        state_after(method, fitting(method)[-1], with_values=False)
    except ValueError as error:
        assert "loss values" in str(error)
        return "yes"
    return ""


def backward_passes(method: Method) -> str:
    if method.scalarizer:
        return "1"
    k = fitting(method)[-1]
    balancer = method.make(k)
    grad_fn = kdopt.value_and_shared_grad(
        lambda p: p["b"], lambda p, z: [jnp.sum(z)] * k, balancer
    )
    try:
        jax.eval_shape(lambda: grad_fn(PARAMS, state=balancer.init(PARAMS)))
    except ValueError:
        return "K"
    return "K, or 1 shared"


def buffers(method: Method) -> str:
    """Counts the trees like the parameters in a state, as a formula in K."""
    ks = fitting(method)[-2:]
    counts = [
        sum(leaf.size for leaf in jax.tree.leaves(state_after(method, k))) // SIZE
        for k in ks
    ]
    if counts[0] == counts[-1]:
        return str(counts[0])
    each = counts[1] - counts[0]
    extra = counts[0] - each * ks[0]
    per_loss = "K" if each == 1 else f"{each} K"
    return f"{per_loss} + {extra}" if extra else per_loss


def link(module: ModuleType, name: str) -> str:
    """Links to the description of a function, as kdopt's own if kdopt exports it."""
    own = getattr(kdopt, name, None) is getattr(module, name)
    return f"{{py:func}}`~{'kdopt' if own else module.__name__}.{name}`"


def is_method(function) -> bool:
    returns = inspect.signature(function).return_annotation
    return returns is optax.GradientTransformationExtraArgs


def summary() -> str:
    """Makes the tables, one line per function."""
    columns = "K", "`values`", "backward passes", "buffers"
    lines = [
        f"| balancer or scalarizer | what it does | {' | '.join(columns)} |",
        "|---|---|---|---|---|---|",
    ]
    for module in METHOD_MODULES:
        for name in functions(module):
            function = getattr(module, name)
            if is_method(function):
                row = ROWS[function]
                facts = losses(row), values(row), backward_passes(row), buffers(row)
                cells = link(module, name), first_line(function), *facts
                lines.append(f"| {' | '.join(cells)} |")
    done = {
        name for module in (*METHOD_MODULES, kdopt.wrappers) for name in module.__all__
    }
    for title, module, names in (
        ("wrapper", kdopt.wrappers, functions(kdopt.wrappers)),
        ("other function", kdopt, [n for n in functions(kdopt) if n not in done]),
        ("loss", kdopt.losses, functions(kdopt.losses)),
        ("diagnostic", kdopt.diagnostics, functions(kdopt.diagnostics)),
    ):
        lines += ["", f"| {title} | what it does |", "|---|---|"]
        lines += [
            f"| {link(module, n)} | {first_line(getattr(module, n))} |" for n in names
        ]
    return "\n".join(lines) + "\n"


def page() -> str:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return before + BEGIN + summary() + END + rest.partition(END)[2]


def test_the_summary_is_current(standard):
    assert PAGE.read_text() == page(), "run python -m tests.test_reference"


if __name__ == "__main__":
    PAGE.write_text(page())
