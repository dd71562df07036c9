"""Counts what training steps of DeiT students with three losses take, without running.

``python -m benchmarks.transformers`` prints multiply-adds in convolutions and matrix
products per image, of the student's forward and backward passes and of the teacher's
forward pass, under each way to balance the losses: by tracing alone. Strided
convolutions, as in the stem of VkD's students, would be counted with the zeros of their
gradients. ``--memory`` compiles the gradients of a batch of 256 images in bfloat16 for
this machine and prints the memory for temporary arrays. ``--scan`` compares blocks in a
loop with blocks in turn: the time to compile the gradient, and that of one step.
"""

import argparse
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.interpreters.partial_eval import dce_jaxpr

import kdopt
from benchmarks._measure import compile_timed, ratios, seconds
from kdlab import models
from kdlab.data import AUGMENTATIONS
from kdlab.losses.base import Batch, Pupil, Setting
from kdlab.losses.tokens import VkdTokens
from kdlab.models import Outputs
from kdlab.models._summary import count_multiply_adds
from kdlab.models.network import Network
from kdlab.train.problem import Problem

STUDENTS = "deit_ti_distilled", "deit_s_distilled"
TEACHER, CLASSES = "regnety_160", 1000
COUNTED, COMPILED = 2, 256


class Step(NamedTuple):
    """The gradients of a step: ways to compute them, and shapes of their arguments."""

    calls: dict[str, Any]
    params: Any
    batch: Batch


def network(name: str, dtype: Any = None) -> nnx.Module:
    """Returns a network of shapes without values."""
    return nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), dtype=dtype))


def shape_of(size: int) -> jax.ShapeDtypeStruct:
    """Returns the shape of a batch of images."""
    return jax.ShapeDtypeStruct((size, 224, 224, 3), jnp.float32)


def make_step(name: str, size: int, dtype: Any = None) -> Step:
    """Makes the step of a student on a batch."""
    model, images = network(name, dtype), shape_of(size)
    asked = _compared(
        jax.eval_shape(Network.outputs, Network.of(network(TEACHER)), images)
    )
    shapes = jax.eval_shape(Network.outputs, Network.of(model), images)
    make = functools.partial(VkdTokens, Setting(student=shapes, teacher=asked))
    pupil = Network.of(Pupil(model, nnx.eval_shape(lambda: make(nnx.Rngs(0)))))
    images_only: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    problem = Problem(
        pupil.graphdef,
        None,
        VkdTokens,
        steps=1,
        augment=AUGMENTATIONS["none"],
        **images_only,
    )
    batch = Batch(
        images=images,
        labels=jax.ShapeDtypeStruct((size, CLASSES), jnp.float32),
        weights=jax.ShapeDtypeStruct((size,), jnp.float32),
        rest=pupil.rest,
        key=jax.eval_shape(lambda: jax.random.key(0)),
        progress=jax.ShapeDtypeStruct((), jnp.float32),
        teacher=asked,
    )
    return Step(_calls(problem, kdopt.dto_kd(num_losses=3)), pupil.params, batch)


def _compared(outputs: Outputs) -> Outputs:
    """Returns the outputs of the teacher that the losses read."""
    return outputs._replace(features=outputs.features[-1:], preactivations=())


def _calls(problem: Problem, balancer: Any) -> dict[str, Any]:
    fixed = kdopt.value_and_weighted_grad(problem.losses_fn, has_aux=True)
    shared = kdopt.value_and_shared_grad(
        problem.encode, problem.head, balancer, has_aux=True, weigh_heads=False
    )

    def at_tokens(params: Any, batch: Batch) -> Any:
        return shared(params, batch, state=balancer.init(params))

    return {
        "fixed or amortised": functools.partial(fixed, weights=jnp.ones(3)),
        "shared": at_tokens,
        "exact": kdopt.value_and_grads(problem.losses_fn, has_aux=True),
    }


def count(function: Any, *arguments: Any) -> float:
    """Returns millions of multiply-adds per image."""
    traced = jax.make_jaxpr(function)(*arguments)
    program, _ = dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars))
    return count_multiply_adds(program) / COUNTED / 1e6


def print_counts() -> None:
    """Prints the multiply-adds of each way."""
    teacher = Network.of(network(TEACHER))
    forward = count(Network.outputs, teacher, shape_of(COUNTED))
    print(f"{TEACHER}, forward: {forward:,.0f} M")
    for name in STUDENTS:
        step = make_step(name, COUNTED)
        found = {
            k: count(call, step.params, step.batch) for k, call in step.calls.items()
        }
        plain = found["fixed or amortised"]
        print(f"\n{name}")
        for label, millions in found.items():
            print(f"{label:20} {millions:9,.0f} M, {millions / plain:.2f} times")


def print_memory() -> None:
    """Prints the memory of each way, as counted by the compiler."""
    for name in STUDENTS:
        step = make_step(name, COMPILED, jnp.bfloat16)
        print(f"\n{name}, {COMPILED} images, bfloat16, {jax.default_backend()}")
        for label, call in step.calls.items():
            compiled = jax.jit(call).lower(step.params, step.batch).compile()
            used = compiled.memory_analysis().temp_size_in_bytes
            print(f"{label:20} {used / 2**30:6.1f} GiB")


def print_scan(rounds: int = 20) -> None:
    """Prints what gradients take with the blocks in turn and in a loop."""
    for name, size in ((STUDENTS[0], 4), ("vit_tiny32", 32)):
        calls, compiled = {}, {}
        images = jnp.ones((size, *models.find(name).image_shape))
        for label, scan in (("in turn", False), ("in a loop", True)):
            net = Network.of(models.create(name, rngs=nnx.Rngs(0), scan=scan))
            call = jax.grad(functools.partial(_square_logits, net, images))
            program, compiled[label] = compile_timed(call, net.params)
            calls[label] = functools.partial(program, net.params)
        times = ratios(seconds(calls, rounds), "in turn")
        print(f"\n{name}, {size} images")
        for label, ratio in times.items():
            print(f"{label:10} compiled in {compiled[label]:.1f} s, a step {ratio:.2f}")


def _square_logits(network: Network, images: jax.Array, params: Any) -> jax.Array:
    return jnp.sum(network._replace(params=params).outputs(images).logits ** 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--scan", action="store_true")
    chosen = parser.parse_args()
    if chosen.scan:
        print_scan()
    elif chosen.memory:
        print_memory()
    else:
        print_counts()
