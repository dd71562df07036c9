"""Inputs of the golden values, shared by the tests of the losses."""

import jax.numpy as jnp
import numpy as np

LABELS = np.array([3, 1, 7, 0])


def wave(shape, a, b, c, dtype=np.float64):
    """``c sin(a i + b)`` in row-major order."""
    i = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    return jnp.asarray((c * np.sin(a * i + b)).astype(dtype))


def wave_map(shape, a, b, c, dtype=np.float64):
    """The same as a feature map: ``shape`` is [b, c, h, w], the result [b, h, w, c]."""
    return jnp.moveaxis(wave(shape, a, b, c, dtype), 1, -1)


def logits(dtype=np.float64):
    return wave((4, 10), 0.7, 0.1, 2, dtype), wave((4, 10), 1.3, 0.4, 3, dtype)


def vectors(dtype=np.float64):
    return wave((4, 6), 0.9, 0.3, 1, dtype), wave((4, 7), 0.6, 0.8, 1.2, dtype)


def maps(dtype=np.float64):
    """Student and teacher with different channels."""
    student = wave_map((4, 3, 4, 4), 0.37, 0.2, 1, dtype)
    return student, wave_map((4, 5, 4, 4), 0.53, 0.9, 1.5, dtype)


def paired_maps(dtype=np.float64):
    """Student and teacher with equal channels."""
    student = wave_map((4, 5, 8, 8), 0.37, 0.2, 1, dtype)
    return student, wave_map((4, 5, 8, 8), 0.53, 0.9, 1.5, dtype)
