"""Networks with two losses and a batch, on which training steps are timed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import kdopt
from benchmarks.accelerator import transformer
from benchmarks.accelerator._arrays import abstract, initial, noise, struct
from benchmarks.accelerator.transformer import DECODER, DEIT_S, Size
from benchmarks.modes import Modes
from kdlab.models import create
from kdopt import losses


class Task(NamedTuple):
    """A network to train and its data.

    Attributes:
        modes: The steps to time.
        params: Shapes of the parameters.
        rest: Shapes of the other state.
        batch: Shapes of a batch: inputs, labels, the teacher's logits.
        items: Images or tokens per batch.
    """

    modes: Modes
    params: Any
    rest: Any
    batch: dict[str, Any]
    items: int

    def arrays(self) -> tuple[Any, Any, Any]:
        """Makes initial values on the host and a batch of noise on the device."""
        return initial(self.params), initial(self.rest), noise(self.batch)


def convolutional(
    name: str, batch: int, shape: tuple[int, int, int], classes: int, dtype: Any
) -> Task:
    """Makes a task with a kdlab network, trained by SGD with momentum."""
    model = nnx.eval_shape(
        lambda: create(
            name,
            rngs=nnx.Rngs(0),
            num_classes=classes,
            image_shape=shape,
            dtype=dtype,
        )
    )
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def encode(params: Any, rest: Any, batch: Any) -> Any:
        network = nnx.merge(graphdef, params, rest, copy=True)
        network.train()
        logits = network(batch["x"].astype(dtype)).logits
        return logits, nnx.split(network, nnx.Param, ...)[2]

    sgd = optax.sgd(0.01, momentum=0.9)
    dot = optax.chain(kdopt.dot(), optax.scale_by_learning_rate(0.01))
    modes = Modes(encode, _heads, sgd, dot)
    inputs = _batch(struct((batch, *shape)), (batch,), classes, jnp.float32)
    return Task(modes, abstract(params), abstract(rest), inputs, batch)


def vision_transformer(batch: int, size: Size = DEIT_S, side: int = 224) -> Task:
    """Makes a task with an image encoder in bfloat16, trained by AdamW."""

    def encode(params: Any, rest: Any, batch: Any) -> Any:
        images = batch["x"].astype(jnp.bfloat16)
        return transformer.encode_images(size, params, images), rest

    images = struct((batch, side, side, 3))
    inputs = _batch(images, (batch,), size.classes, jnp.float32)
    return Task(_adamw(encode), transformer.parameters(size), {}, inputs, batch)


def decoder(batch: int, size: Size = DECODER) -> Task:
    """Makes a task with a decoder in bfloat16, trained by AdamW on all tokens."""

    def encode(params: Any, rest: Any, batch: Any) -> Any:
        scores = transformer.decode_tokens(size, params, batch["x"], jnp.bfloat16)
        return scores.reshape(-1, size.inputs), rest

    tokens = struct((batch, size.length), jnp.int32)
    count = batch * size.length
    inputs = _batch(tokens, (count,), size.inputs, jnp.bfloat16)
    return Task(_adamw(encode), transformer.parameters(size), {}, inputs, count)


def _resnet8x4(batch: int) -> Task:
    return convolutional("resnet8x4", batch, (32, 32, 3), 100, jnp.float32)


def _adamw(encode: Callable) -> Modes:
    return Modes(encode, _heads, optax.adamw(1e-4), kdopt.dot_adamw(1e-4))


def _heads(params: Any, logits: jax.Array, rest: Any, batch: Any) -> Any:
    del params, rest
    task = losses.cross_entropy(logits, batch["labels"])
    return task, losses.kd(logits, batch["teacher"], temperature=4.0)


def _batch(x: Any, rows: tuple[int], classes: int, dtype: Any) -> dict[str, Any]:
    labels = struct(rows, jnp.int32)
    return {"x": x, "labels": labels, "teacher": struct((*rows, classes), dtype)}


TASKS: dict[str, Callable[[], Task]] = {
    "deit_s, 128": lambda: vision_transformer(128),
    "resnet8x4, 64": lambda: _resnet8x4(64),
    "decoder_100m, 8 x 1024": lambda: decoder(8),
    "resnet50, 128": lambda: convolutional(
        "resnet50_imagenet", 128, (224, 224, 3), 1000, jnp.bfloat16
    ),
    "resnet8x4, 512": lambda: _resnet8x4(512),
}
"""Tasks by name and batch size, in bfloat16 except ResNet-8x4, which is in float32."""

TINY: dict[str, Callable[[], Task]] = {
    "mlp": lambda: convolutional("mlp", 4, (8, 8, 1), 10, jnp.float32),
    "encoder": lambda: vision_transformer(2, Size(16, 1, 2, 4, 4 * 4 * 3, 10), 8),
    "decoder": lambda: decoder(2, Size(16, 2, 2, 8, 32)),
}
