"""Measures memory and time of losses on a linear head, whole and in chunks.

``python -m benchmarks.linear_losses`` prints the table of docs/language_models.md.
"""

import functools
import time

import jax
import jax.numpy as jnp

import kdopt
from kdopt import losses

TOKENS, WIDTH, WORDS = 4096, 256, 32768
CHUNKS = 1024, 256, 128


def of_logits(student, teacher, labels, **options):
    """Computes cross-entropy and KL."""
    task = losses.cross_entropy(student, labels, **options)
    return task, losses.kd(student, teacher, temperature=1.0, **options)


def whole(student, teacher, labels):
    """Computes them from all logits at once."""
    return of_logits(*(hidden @ head for hidden, head in (student, teacher)), labels)


def chunked(student, teacher, labels, size):
    """Computes them chunk by chunk."""
    return losses.linear_losses(
        of_logits, student, labels, teacher=teacher, chunk_size=size
    )


def total(fn, *args):
    """Returns the sum of both losses."""
    return sum(fn(*args))


def inputs(tokens: int):
    """Returns shapes of student and teacher (hidden states and head) and labels."""
    pair = tuple(
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in ((tokens, WIDTH), (WIDTH, WORDS))
    )
    return pair, pair, jax.ShapeDtypeStruct((tokens,), jnp.int32)


def mebibytes(grad_fn) -> float:
    """Returns the temporary memory of the compiled program, without running it."""
    compiled = jax.jit(grad_fn).lower(*inputs(TOKENS)).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 2**20


def seconds(grad_fn) -> float:
    """Returns the shorter of two times, with a quarter of the tokens."""
    args = jax.tree.map(
        lambda x: jnp.sin(jnp.arange(x.size)).reshape(x.shape).astype(x.dtype),
        inputs(TOKENS // 4),
    )
    compiled = jax.jit(grad_fn).lower(*args).compile()
    times = []
    for _ in range(2):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        times.append(time.perf_counter() - begin)
    return min(times)


def main() -> None:
    """Prints a table in Markdown."""
    print("| | two gradients: MiB | s | gradient of the sum: MiB | s |")
    print("|---|---|---|---|---|")
    rows = {"all logits": whole}
    rows |= {f"chunks of {n}": functools.partial(chunked, size=n) for n in CHUNKS}
    for name, fn in rows.items():
        cells = []
        for grad_fn in (
            kdopt.value_and_grads(fn),
            jax.value_and_grad(functools.partial(total, fn)),
        ):
            cells += [f"{mebibytes(grad_fn):,.0f}", f"{seconds(grad_fn):.1f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
