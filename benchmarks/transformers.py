"""Counts the multiplications of training steps of DeiT students, by tracing alone.

``python -m benchmarks.transformers`` prints multiply-adds in convolutions and matrix
products per image, of the student's forward and backward passes and of the teacher's
forward pass, for three losses under each way to balance them. Strided convolutions, as
in the stem of VkD's students, would be counted with the zeros of their gradients.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.interpreters.partial_eval import dce_jaxpr

import kdopt
from kdlab import models
from kdlab.data import AUGMENTATIONS
from kdlab.losses.base import Batch, Pupil, Setting
from kdlab.losses.tokens import VkdTokens
from kdlab.models._summary import _equations, _multiply_adds
from kdlab.models.network import Network
from kdlab.train.problem import Problem

STUDENTS = "deit_ti_distilled", "deit_s_distilled"
TEACHER, IMAGES, CLASSES = "regnety_160", 2, 1000


def count(function: Any, *arguments: Any) -> float:
    """Returns millions of multiply-adds per image."""
    traced = jax.make_jaxpr(function)(*arguments)
    program, _ = dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars))
    return sum(map(_multiply_adds, _equations(program))) / IMAGES / 1e6


def network(name: str) -> nnx.Module:
    """Returns a network of shapes without values."""
    return nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0)))


def steps(problem: Problem, balancer: Any) -> dict[str, Any]:
    """Returns the gradient calls by name."""
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


def main() -> None:
    """Prints the table."""
    teacher = Network.of(network(TEACHER))
    images = jax.ShapeDtypeStruct((IMAGES, 224, 224, 3), jnp.float32)
    asked = jax.eval_shape(Network.outputs, teacher, images)
    print(f"{TEACHER}, forward: {count(Network.outputs, teacher, images):,.0f} M")
    for name in STUDENTS:
        model = network(name)
        alone = Network.of(model)
        shapes = jax.eval_shape(Network.outputs, alone, images)
        setting = Setting(student=shapes, teacher=asked)
        make = functools.partial(VkdTokens, setting)
        loss = nnx.eval_shape(lambda make=make: make(nnx.Rngs(0)))
        pupil = Pupil(model, loss)
        whole = Network.of(pupil)
        problem = Problem(
            whole.graphdef,
            None,
            VkdTokens,
            steps=1,
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            augment=AUGMENTATIONS["none"],
        )
        rows = jax.ShapeDtypeStruct((IMAGES,), jnp.float32)
        batch = Batch(
            images=images,
            labels=jax.ShapeDtypeStruct((IMAGES, CLASSES), jnp.float32),
            weights=rows,
            rest=whole.rest,
            key=jax.eval_shape(lambda: jax.random.key(0)),
            progress=jax.ShapeDtypeStruct((), jnp.float32),
            teacher=asked,
        )
        forward = count(Network.outputs, alone, images)
        print(f"\n{name}, forward: {forward:,.0f} M")
        found = {
            label: count(call, whole.params, batch)
            for label, call in steps(problem, kdopt.dto_kd(num_losses=3)).items()
        }
        plain = found["fixed or amortised"]
        for label, millions in found.items():
            print(f"{label:20} {millions:9,.0f} M, {millions / plain:.2f} times")


if __name__ == "__main__":
    main()
