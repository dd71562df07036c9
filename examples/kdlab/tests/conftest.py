"""The setup of the library's tests, with one device and JAX's own random generator."""

import os
from pathlib import Path

import jax
import pytest

# Compiler flags, eight fake devices, strict arrays: the same as for the library.
from tests.conftest import (  # noqa: F401
    _strict_dtypes,
    pytest_collection_finish,
    pytest_runtest_setup,
    standard,
    x64,
)

HERE = Path(__file__).parent
# Processes started by tests find the laboratory, installed or not, and these helpers.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(HERE), str(HERE.parent / "src"), str(HERE.parents[2])]
    + [path for path in [os.environ.get("PYTHONPATH")] if path]
)


@pytest.fixture(autouse=True)
def _default_generator():
    """The command line chooses another generator."""
    before = jax.config.jax_default_prng_impl
    yield
    jax.config.update("jax_default_prng_impl", before)


@pytest.fixture(autouse=True, scope="session")
def _one_device():
    """Selects one of the eight fake devices; tests of several devices undo this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdlab.devices.mesh.list_devices", lambda: jax.devices()[:1])
        yield
