"""Balance the two losses of Tunix's distillation, in two ways.

``pip install google-tunix``, then ``python -m examples.tunix_trainer``. Read with
google-tunix 0.1.7, with which ``tests/peers/test_tunix.py`` runs it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.distillation import distillation_trainer  # pyrefly: ignore
from tunix.distillation.strategies import LogitStrategy  # pyrefly: ignore

import kdopt
import kdopt.nnx
from kdopt import losses

VOCABULARY = 32


class BalancedStrategy(LogitStrategy):
    """A strategy that balances at the logits; Tunix differentiates its one scalar.

    Attributes:
        balancer: Any balancer without a memory.
        denominator: What the sums over tokens are divided by; with accumulation give
            the tokens of all micro-batches over their number, since Tunix averages.
    """

    balancer = kdopt.dto_kd(rescale="convex")
    denominator: Any = "mean"

    def losses(self, student_output, teacher_output, labels):
        """Computes cross-entropy and KL of the tokens that have a label."""
        rows: dict[str, Any] = {
            "sample_weights": jnp.sum(labels, axis=-1),
            "denominator": self.denominator,
        }
        task = losses.cross_entropy(student_output, labels, **rows)
        tau = self.temperature
        return task, losses.kd(student_output, teacher_output, temperature=tau, **rows)

    def compute_loss(self, student_output, teacher_output, labels):
        """Replaces the sum with a fixed ``alpha``."""
        losses_fn = functools.partial(
            self.losses, teacher_output=teacher_output, labels=labels
        )
        loss, aux = kdopt.balanced_loss(losses_fn, student_output, self.balancer)
        return loss, {
            "distill/hard_loss": aux.values[0],
            "distill/soft_loss": aux.values[1],
            "distill/weight": aux.weights[1],
            "distill/cosine": aux.cosines[0, 1],
        }


class BalancedTrainer(distillation_trainer.DistillationTrainer):
    """A trainer whose optimiser starts with a balancer of the parameter gradients.

    Its own accumulation cannot add up two gradients: instead of asking Tunix for it,
    put :func:`kdopt.accumulate` around the optimiser.
    """

    def _train_step(self, model, optimizer, inputs):
        def losses_fn(model, teacher_output, inputs):
            logits = self.strategy.get_student_outputs(model, inputs)
            labels = self.strategy._labels_fn(**inputs)
            return self.strategy.losses(logits, teacher_output, labels)

        inputs = self.gen_model_input_fn(inputs)
        values, grads = kdopt.nnx.value_and_grads(losses_fn)(model, **inputs)
        optimizer.update(model, grads, values=values)
        aux = {"distill/hard_loss": values[0], "distill/soft_loss": values[1]}
        return jnp.sum(values), aux, optax.global_norm(grads)


class Model(nnx.Module):
    """The smallest language model: it predicts each token from the previous one."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.embed = nnx.Embed(VOCABULARY, width, rngs=rngs)
        self.hidden = nnx.Linear(width, width, rngs=rngs)
        self.head = nnx.Linear(width, VOCABULARY, use_bias=False, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Returns the logits of the token after each."""
        return self.head(jnp.tanh(self.hidden(self.embed(tokens))))


def forward(model, input_tokens, input_mask):
    """Returns the logits of the next token."""
    del input_mask
    return model(input_tokens)


def labels_of(input_tokens, input_mask):
    """Returns the next token, one-hot; zeros for padding."""
    following = jnp.roll(input_tokens, -1, axis=1)
    return jax.nn.one_hot(following, VOCABULARY) * input_mask[..., None]


def batches(count: int, size: int = 4, length: int = 8):
    """Yields sequences that count up from a random number, padded to random lengths."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        tokens = (
            rng.integers(0, VOCABULARY, (size, 1)) + np.arange(length)
        ) % VOCABULARY
        mask = np.arange(length) < rng.integers(3, length, (size, 1))
        yield distillation_trainer.TrainingInput(
            input_tokens=jnp.asarray(tokens), input_mask=jnp.asarray(mask, jnp.float32)
        )


def train(trainer_class, strategy, tx, data, *, accumulation=None, log=None):
    """Trains a small student on a random teacher; returns it."""
    config = distillation_trainer.TrainingConfig(
        eval_every_n_steps=1000, gradient_accumulation_steps=accumulation
    )
    student, teacher = Model(8, nnx.Rngs(0)), Model(16, nnx.Rngs(1))
    trainer = trainer_class(student, teacher, strategy, tx, config)
    if log is not None:
        trainer._post_process_train_step = log.append
    trainer.train(data)
    return student


def main() -> None:
    """Trains in both ways and prints the final losses."""
    strategy = BalancedStrategy(forward, forward, labels_of)
    chain = optax.chain(kdopt.dto_kd(rescale="convex"), optax.adam(1e-2))
    for name, trainer, tx in (
        ("balanced scalar", distillation_trainer.DistillationTrainer, optax.adam(1e-2)),
        ("balanced gradients", BalancedTrainer, chain),
    ):
        log: list = []
        train(trainer, strategy, tx, batches(30), log=log)
        hard, soft = (log[-1][f"distill/{key}_loss"] for key in ("hard", "soft"))
        print(f"{name}: cross-entropy {hard:.3f}, KL {soft:.3f}")


if __name__ == "__main__":
    main()
