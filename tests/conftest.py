"""Strict arrays for every test: no silent promotion of rank or dtype."""

import os

# Eight fake devices, before jax starts: sharding is tested everywhere.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


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
