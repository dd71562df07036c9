"""Strict arrays for every test: no silent promotion of rank or dtype."""

import functools
import gc
import os
import threading
from pathlib import Path

from tests import _compiler

os.environ.update(_compiler.environment())  # before jax starts

import jax
import pytest
from jax._src.interpreters import mlir

jax.config.update("jax_numpy_rank_promotion", "raise")

_modules: list = []  # the module of the last test
_contexts: dict = {}  # its MLIR context in each thread


def _share_mlir_context(make):
    """Lowers all programs of a test module in one context.

    To make a context takes as long as to lower a small program, of which there are tens
    of thousands.
    """
    thread = threading.get_ident()
    if thread not in _contexts:
        _contexts[thread] = make()
    return _contexts[thread]


if hasattr(mlir, "make_ir_context"):  # private to JAX
    mlir.make_ir_context = functools.partial(_share_mlir_context, mlir.make_ir_context)


def pytest_collection_finish():
    """Keeps the collector off what lives to the end: the modules and the tests.

    What a test leaves behind is collected when the test module changes, see below.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 1000)


def _count_mappings() -> int:
    file = Path("/proc/self/maps")
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def pytest_runtest_setup(item):
    """Forgets compiled programs and MLIR contexts when the test module changes.

    Each program takes several memory mappings, of which Linux allows a process 65,530.
    Slow tests can fill half of them each, so before a slow test they are counted.
    """
    module = getattr(item, "module", None)  # None for all doctests
    full = item.get_closest_marker("slow") and _count_mappings() > 20_000
    if full or (_modules and _modules != [module]):
        jax.clear_caches()
        _contexts.clear()
        gc.collect()
    _modules[:] = [module]


@pytest.fixture(autouse=True)
def _strict_dtypes():
    """Optax itself needs promotion; tests that chain with it request `standard`."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def standard():
    """Ordinary dtype and rank promotion, as Optax's own optimisers need."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def x64():
    """Double precision, for golden values."""
    with jax.enable_x64(True):
        yield
