"""Times one training step of ResNet-8x4 per mode; see ``python -m benchmarks``."""

import functools

import jax
import pytest

from benchmarks import train_step


@functools.cache
def steps():
    return train_step.steps(batch_size=8)


@pytest.mark.parametrize("mode", train_step.MODES)
def test_step(benchmark, mode):
    program, args, _ = steps()[mode]
    benchmark.pedantic(
        lambda: jax.block_until_ready(program(*args)), rounds=5, warmup_rounds=1
    )
