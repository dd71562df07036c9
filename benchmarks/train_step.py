"""Times one training step in each mode, relative to fixed weights."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import kdopt
from benchmarks._measure import compile_timed, ratios, seconds
from benchmarks.modes import Modes
from kdlab.models import create
from kdopt import losses

MODES = (
    "fixed weights",
    "exact, K = 2",
    "DOT",
    "shared",
    "amortised, next call",
    "amortised, same batch",
)


def steps(model: str = "resnet8x4", batch_size: int = 16) -> dict:
    """Returns compiled steps and arguments by mode; the teacher's logits are data."""
    graphdef, params, rest = nnx.split(create(model, rngs=nnx.Rngs(0)), nnx.Param, ...)
    rng = np.random.default_rng(0)
    batch = {
        "x": jnp.asarray(rng.standard_normal((batch_size, 32, 32, 3), np.float32)),
        "labels": jnp.asarray(rng.integers(0, 100, batch_size)),
        "teacher": jnp.asarray(rng.standard_normal((batch_size, 100), np.float32)),
    }

    def encode(params, rest, batch):
        network = nnx.merge(graphdef, params, rest, copy=True)
        network.train()
        logits = network(batch["x"]).logits
        return logits, nnx.split(network, nnx.Param, ...)[2]

    def heads(params, logits, rest, batch):
        del params, rest
        task = losses.cross_entropy(logits, batch["labels"])
        return task, losses.kd(logits, batch["teacher"], temperature=4.0)

    sgd = optax.sgd(0.1, momentum=0.9)
    dot = optax.chain(kdopt.dot(), optax.scale_by_learning_rate(0.1))
    ways, out = Modes(encode, heads, sgd, dot).all(), {}
    for name in MODES:
        step, init = ways[name]
        args = params, init(params), rest, batch
        program, took = compile_timed(step, *args)
        out[name] = program, args, took
    return out


def measure(rounds: int) -> list:
    """Returns one row for each mode."""
    programs = steps()
    calls = {
        name: lambda program=program, args=args: program(*args)
        for name, (program, args, _) in programs.items()
    }
    times = seconds(calls, rounds)
    relative = ratios(times, "fixed weights")
    base = programs["fixed weights"][0].cost_analysis()["flops"]
    return [
        {
            "mode": name,
            "ms": 1e3 * float(np.median(times[name])),
            "ratio": relative[name],
            "flops_ratio": program.cost_analysis()["flops"] / base,
            "temp_bytes": program.memory_analysis().temp_size_in_bytes,
            "compile_s": took,
        }
        for name, (program, _, took) in programs.items()
    ]


def overhead(calls: int = 200) -> dict[str, float]:
    """Measures the dispatch of a jitted update, and programs compiled by a schedule."""
    tx = kdopt.dot(momentum=optax.linear_schedule(0.9, 0.95, calls))
    params = jnp.zeros(8)
    state = tx.init(params)
    update = jax.jit(tx.update)
    grads = (params, params)
    _, state = update(grads, state)
    began = time.perf_counter()
    for _ in range(calls):
        out, state = update(grads, state)
    jax.block_until_ready(out)
    elapsed = time.perf_counter() - began
    return {
        "jitted_update_us": 1e6 * elapsed / calls,
        "programs": update._cache_size(),
    }
