"""Measures how long programs with many leaves take to compile."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

import kdopt

KINDS = [(64,), (64, 64), (3, 3, 16, 16), (128,), (32, 64), (16,)]
"""Shapes of the leaves, in rotation: vectors, matrices, convolutions."""


def programs(leaves: list) -> dict[str, tuple[Callable, tuple]]:
    """Returns functions and abstract arguments, for K = 2 gradients or one."""
    grads = (leaves, leaves)

    def with_state(tx: optax.GradientTransformation, updates: object) -> tuple:
        return tx.update, (updates, jax.eval_shape(tx.init, leaves))

    return {
        "nothing": (lambda tree: [2 * leaf for leaf in tree], (leaves,)),
        "optax.sgd": with_state(optax.sgd(0.1, momentum=0.9), leaves),
        "gram": (kdopt.gram, (grads,)),
        "dot": with_state(kdopt.dot(), grads),
        "min_norm": with_state(kdopt.min_norm(), grads),
    }


def tree(count: int, *, stacked: bool) -> list:
    """Makes a tree of leaves, with those of equal shape stacked if requested."""
    shapes = [KINDS[n % len(KINDS)] for n in range(count)]
    if stacked:
        shapes = [(shapes.count(shape), *shape) for shape in dict.fromkeys(shapes)]
    return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]


def measure(counts: tuple[int, ...]) -> list:
    """Returns one row for each program and size: wall time and processor time.

    The latter hardly depends on the load of the machine.
    """
    rows = []
    for count in counts:
        for stacked in (False, True):
            for name, (fn, args) in programs(tree(count, stacked=stacked)).items():
                clock, processors = time.perf_counter(), time.process_time()
                jax.jit(fn).lower(*args).compile()
                rows.append(
                    {
                        "leaves": count,
                        "stacked": stacked,
                        "program": name,
                        "seconds": time.perf_counter() - clock,
                        "processor_s": time.process_time() - processors,
                    }
                )
    return rows
