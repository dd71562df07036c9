"""Inputs of the golden values, shared by the tests of the losses."""

import jax.numpy as jnp
import numpy as np

LABELS = np.array([3, 1, 7, 0])


def _sines(shape, a, b, c, dtype):
    i = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    return (c * np.sin(a * i + b)).astype(dtype)


def wave(shape, a, b, c, dtype=np.float64):
    """``c sin(a i + b)`` in row-major order."""
    return jnp.asarray(_sines(shape, a, b, c, dtype))


def wave_map(shape, a, b, c, dtype=np.float64):
    """The same as a feature map: ``shape`` is [b, c, h, w], the result [b, h, w, c]."""
    return jnp.asarray(np.moveaxis(_sines(shape, a, b, c, dtype), 1, -1))


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


TOKEN_LABELS = np.array([3, 0, 7, 10])


def token_logits(dtype=np.float64, classes=11):
    """Logits of four tokens whose golden values are those of the losses for text."""
    i = np.arange(44, dtype=np.float64).reshape(4, 11)
    j = np.arange(4 * classes, dtype=np.float64).reshape(4, classes)
    student = 3 * np.sin(0.3 * i**2 + 1.7 * i + 1)
    teacher = 3 * np.cos(0.2 * j**2 + 1.1 * j + 0.5)
    return jnp.asarray(student.astype(dtype)), jnp.asarray(teacher.astype(dtype))
