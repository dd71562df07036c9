"""Times every balancer from K gradients to one update, and the bounds."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

import kdopt
from benchmarks._measure import compile_timed, ratios, read_once, seconds
from benchmarks._trees import SHAPES, gradients, parameters
from tests._methods import METHODS


def update_of(tx: optax.GradientTransformationExtraArgs, params: list, k: int):
    """Returns a method's update as a function of gradients, state and parameters."""
    values = jnp.arange(1.0, k + 1)

    def update(grads, state, params):
        return tx.update(grads, state, params=params, values=values)

    return update, tx.init(params)


def measure(tree: str, k: int, rounds: int, names: Sequence[str] | None = None) -> list:
    """Returns one row for each method and each pass over the gradients."""
    shapes = SHAPES[tree]()
    grads = gradients(shapes, k)
    size = 4 * parameters(shapes)
    weights = jnp.full(k, 1 / k)
    tx = optax.trace(0.9)
    jobs = {
        "read once": (read_once, (grads,)),
        "gram": (kdopt.gram, (grads,)),
        "combine": (kdopt.combine, (grads, weights)),
        "optax.trace of one tree": (tx.update, (grads[0], tx.init(grads[0]))),
    }
    for method in METHODS:
        wanted = names is None or method.name in names
        if wanted and k in method.ks and not method.scalarizer:
            with jax.numpy_dtype_promotion("standard"):
                update, state = update_of(method.make(k), grads[0], k)
            jobs[method.name] = (update, (grads, state, grads[0]))
    calls, rows = {}, {}
    for name, (fn, args) in jobs.items():
        try:
            program, took = compile_timed(fn, *args)
        except ValueError as error:  # needs more than values, such as a key
            rows[name] = {"skipped": str(error).split(":")[0]}
            continue
        calls[name] = lambda program=program, args=args: program(*args)
        rows[name] = {
            "compile_s": took,
            "temp_bytes": program.memory_analysis().temp_size_in_bytes,
            "accessed_trees": program.cost_analysis()["bytes accessed"] / size,
        }
    times = seconds(calls, rounds)
    relative = ratios(times, "read once")
    return [
        {
            "tree": tree,
            "k": k,
            "name": name,
            **row,
            **(
                {
                    "ms": 1e3 * float(np.median(times[name])),
                    "ratio": relative[name],
                    "gb_s": k * size / float(np.median(times[name])) / 1e9,
                }
                if name in times
                else {}
            ),
        }
        for name, row in rows.items()
    ]


def growth(rounds: int) -> list:
    """Times the Gram matrix and its bound over K, parameters and leaves."""
    cases = {
        **{("K", k): ([(512, 1024)] * 4, k) for k in (1, 2, 3, 4, 6, 8)},
        **{("parameters", 2**n): ([(2**n // 256, 256)], 2) for n in range(14, 25, 2)},
        **{("leaves", n): ([(2**20 // n // 16, 16)] * n, 2) for n in (1, 8, 64, 512)},
    }
    rows = []
    for (axis, value), (shapes, k) in cases.items():
        grads = gradients(shapes, k)
        gram, took = compile_timed(kdopt.gram, grads)
        bound, _ = compile_timed(read_once, grads)
        calls = {
            "bound": lambda bound=bound, grads=grads: bound(grads),
            "gram": lambda gram=gram, grads=grads: gram(grads),
        }
        times = seconds(calls, rounds)
        rows.append(
            {
                "axis": axis,
                "value": value,
                "compile_s": took,
                "gram_ms": 1e3 * float(np.median(times["gram"])),
                "bound_ms": 1e3 * float(np.median(times["bound"])),
                "ratio": ratios(times, "bound")["gram"],
            }
        )
    return rows
