"""Strict arrays for every test: no silent promotion of rank or dtype."""

import gc
import itertools
import os
from pathlib import Path

from tests import _compiler

os.environ.update(_compiler.environment())  # before jax starts

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

_ENDED, _MAPPINGS = itertools.count(1), Path("/proc/self/maps")


def pytest_runtest_teardown():
    """Forgets compiled programs before there are too many.

    Linux allows a process 65,530 mappings, of which each program takes several. The
    compiler crashes when there is none left.
    """
    if next(_ENDED) % 10 or not _MAPPINGS.exists():
        return
    if _MAPPINGS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def _strict_dtypes():
    """Optax itself needs promotion; a test that chains with it asks for `standard`."""
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
