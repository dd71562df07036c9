"""Trainings repeat a program, so that some optimisation pays."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def _some_optimisation():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
