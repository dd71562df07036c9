"""Times every balancer on gradients of real shapes, and one pass over them.

``python -m benchmarks`` measures ratios of interleaved calls; here each is timed alone.
"""

import functools

import jax
import jax.numpy as jnp
import pytest

import kdopt
from benchmarks._measure import read_once
from benchmarks._trees import SHAPES, gradients
from benchmarks.combination import update_of
from tests._methods import METHODS

pytestmark = pytest.mark.usefixtures("standard")

BALANCERS = {m.name: m for m in METHODS if not m.scalarizer and 2 in m.ks}
PASSES = {"read once": read_once, "gram": kdopt.gram}


@functools.cache
def grads(tree):
    return gradients(SHAPES[tree](), 2)


@pytest.fixture
def standard():
    with jax.numpy_dtype_promotion("standard"):
        yield


def run(benchmark, fn, *args):
    program = jax.jit(fn).lower(*args).compile()
    benchmark.extra_info["temp_bytes"] = program.memory_analysis().temp_size_in_bytes
    benchmark.pedantic(
        lambda: jax.block_until_ready(program(*args)), rounds=10, warmup_rounds=2
    )


@pytest.mark.parametrize("name", PASSES)
def test_pass(benchmark, name):
    run(benchmark, PASSES[name], grads("resnet8x4"))


def test_combine(benchmark):
    run(benchmark, kdopt.combine, grads("resnet8x4"), jnp.array([0.5, 0.5]))


@pytest.mark.parametrize("name", BALANCERS)
def test_balancer(benchmark, name):
    trees = grads("resnet8x4")
    update, state = update_of(BALANCERS[name].make(2), trees[0], 2)
    run(benchmark, update, trees, state, trees[0])
