"""No product on a Gram matrix is left to the default precision of a device.

TF32 and bfloat16 keep 3 and 2 digits of a cosine: near-opposite gradients then raise a
loss that a method promises to lower. All public functions are traced here.
"""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from kdopt import (
    _cone,
    _fixed_point,
    _nonnegative,
    _parabola,
    _simplex,
    _spectrum,
    diagnostics,
)
from tests import _samplers
from tests._methods import KEY, METHOD, METHODS, transform
from tests._precision import loose_products

K = 4
ROWS = _samplers.generic(0, K).astype(np.float32)
VALUES = _samplers.values(0, K).astype(np.float32)
ONES = np.ones(K, np.float32)

ARGUMENTS = {
    **dict.fromkeys(("gram", "hessian", "matrix", "targets"), ROWS @ ROWS.T),
    **dict.fromkeys(("values", "linear", "b", "floor", "weights", "logits"), VALUES),
    **dict.fromkeys(("previous", "norms", "point", "log_scales", "before"), VALUES),
    **dict.fromkeys(("log_variances", "shortfall", "variances"), VALUES),
    "limits": np.float32(1.5),
    **dict.fromkeys(("active", "face", "kept"), ONES.astype(bool)),
    **dict.fromkeys(("radius", "alpha", "target"), np.float32(1.5)),
    **dict.fromkeys(("norm_eps", "reg_eps"), np.float32(1e-3)),
    "key": KEY,
    **dict.fromkeys(("traces", "grads"), tuple(ROWS)),
    "updates": ROWS[0],
    "names": tuple("abcd"),
    "num_byzantine": 1,
    "normalize": "norm",
    "policy": "gradual",
}
"""What to pass for an argument of a pure function, by its name."""

STATIC = ("names", "num_byzantine", "normalize", "policy")

PREFIXES_OF_TWO = ("lambda_", "harm_free", "loss_decrease", "dynamic_lambda")
ARGUMENTS_OF_TWO = {
    "gram": (ROWS @ ROWS.T)[:2, :2],
    "values": VALUES[:2],
    **dict.fromkeys(("lambda_", "previous"), np.float32(0.5)),
}

ARGUMENTS_OF_LOGITS = {"logits": ROWS, "labels": np.zeros(len(ROWS), np.int32)}


def functions():
    """Lists solvers, diagnostics, and functions named ``x_weights``."""
    modules = _cone, _fixed_point, _nonnegative, _parabola, _simplex, _spectrum
    for module in (*modules, diagnostics):
        for name, value in vars(module).items():
            own = getattr(value, "__module__", "") == module.__name__
            if own and inspect.isfunction(value) and name[0] != "_":
                yield name, value
    for package in (kdopt.balancers, kdopt.scalarizers):
        for name in package.__all__:
            if name.endswith("_weights") and name != "random_weights":
                yield name, getattr(package, name)


FUNCTIONS = dict(functions())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_pure_functions(name):
    fn = FUNCTIONS[name]
    of_two = ARGUMENTS_OF_TWO if name.startswith(PREFIXES_OF_TWO) else {}
    of_logits = ARGUMENTS_OF_LOGITS if name == "calibrated_cross_entropy" else {}
    known = ARGUMENTS | of_two | of_logits
    given = {
        parameter.name: known[parameter.name]
        for parameter in inspect.signature(fn).parameters.values()
        if parameter.default is parameter.empty or parameter.name in known
    }
    static = {n: given.pop(n) for n in STATIC if n in given}
    assert loose_products(lambda kwargs: fn(**kwargs, **static), given) == []


@pytest.mark.parametrize("name", [m.name for m in METHODS])
def test_methods(request, name):
    method = METHOD[name]
    if not method.strict:
        request.getfixturevalue("standard")
    k, params = method.ks[-1], jnp.zeros(_samplers.DIM)
    rows = _samplers.generic(0, k).astype(np.float32)
    values = _samplers.values(0, k).astype(np.float32)
    tx = transform(name, k)

    def step(grads, state, values):
        return tx.update(
            method.feed(grads), state, params, values=values, **method.extras(k)
        )

    assert loose_products(step, tuple(rows), tx.init(params), values) == []
