"""Most trainings use one device, and the generator that JAX begins with."""

import jax
import pytest


@pytest.fixture(autouse=True)
def _default_generator():
    """The command line chooses another one."""
    before = jax.config.jax_default_prng_impl
    yield
    jax.config.update("jax_default_prng_impl", before)


@pytest.fixture(autouse=True, scope="session")
def _one_device():
    """Of the eight fake ones; a test of several takes them back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("examples.distill.mesh.available", lambda: jax.devices()[:1])
        yield
