"""One training step in each mode, relative to fixed weights."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import kdopt
from benchmarks._measure import compile_timed, ratios, seconds
from examples.distill.models import create
from kdopt import losses


def steps(model: str = "resnet8x4", batch_size: int = 16) -> dict:
    """Compiled step and arguments by mode; the teacher's logits are data."""
    graphdef, params, rest = nnx.split(create(model, rngs=nnx.Rngs(0)), nnx.Param, ...)
    rng = np.random.default_rng(0)
    batch = {
        "x": jnp.asarray(rng.standard_normal((batch_size, 32, 32, 3), np.float32)),
        "labels": jnp.asarray(rng.integers(0, 100, batch_size)),
        "teacher": jnp.asarray(rng.standard_normal((batch_size, 100), np.float32)),
        "rest": rest,
    }

    def encode(params, batch):
        network = nnx.merge(graphdef, params, batch["rest"], copy=True)
        network.train()
        logits = network(batch["x"]).logits
        return logits, nnx.split(network, nnx.Param, ...)[2]

    def heads(params, logits, batch):
        del params
        task = losses.cross_entropy(logits, batch["labels"])
        return task, losses.kd(logits, batch["teacher"], temperature=4.0)

    def losses_fn(params, batch):
        logits, rest = encode(params, batch)
        return heads(params, logits, batch), rest

    sgd = optax.sgd(0.1, momentum=0.9)
    one = kdopt.value_and_weighted_grad(losses_fn, has_aux=True)
    each = kdopt.value_and_grads(losses_fn, has_aux=True)
    at_logits = kdopt.min_norm()
    shared = kdopt.value_and_shared_grad(encode, heads, at_logits, has_aux=True)

    def finish(tx, grads, state, params, **extra):
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    def fixed(params, state, batch):
        (_, rest), grads = one(params, batch, weights=jnp.array([0.5, 0.5]))
        return *finish(sgd, grads, state, params), rest

    def exact(tx):
        def step(params, state, batch):
            (values, rest), grads = each(params, batch)
            return *finish(tx, grads, state, params, values=values), rest

        return step

    def at_shared(params, state, batch):
        inner, balance = state
        (_, rest), grads, balance = shared(params, batch, state=balance)
        params, inner = finish(sgd, grads, inner, params)
        return params, (inner, balance), rest

    def amortised(tx, same_batch):
        def step(params, state, batch):
            (values, rest), grads = one(
                params, batch, weights=lambda v: kdopt.loss_weights(state, v)
            )
            extra = {"values": values}
            if same_batch:
                extra["value_fn"] = lambda p: losses_fn(p, batch)[0]
            return *finish(tx, grads, state, params, **extra), rest

        return step

    balanced = optax.chain(kdopt.min_norm(), sgd)
    dot = optax.chain(kdopt.dot(), optax.scale_by_learning_rate(0.1))
    after = optax.chain(sgd, kdopt.dto_kd_amortized())
    again = optax.chain(sgd, kdopt.dto_kd_amortized(signal="same_batch"))
    modes = {
        "fixed weights": (fixed, sgd.init(params)),
        "exact, K = 2": (exact(balanced), balanced.init(params)),
        "DOT": (exact(dot), dot.init(params)),
        "shared": (at_shared, (sgd.init(params), at_logits.init(params))),
        "amortised, next call": (amortised(after, False), after.init(params)),
        "amortised, same batch": (amortised(again, True), again.init(params)),
    }
    out = {}
    for name, (step, state) in modes.items():
        program, took = compile_timed(step, params, state, batch)
        out[name] = program, (params, state, batch), took
    return out


def measure(rounds: int) -> list:
    """One row for each mode."""
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
    """Microseconds of dispatch of a jitted update, and programs after a schedule."""
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
