"""The training steps to compare, for any network with two losses."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import kdopt

Step = Callable[..., tuple[Any, Any, Any]]
"""``step(params, state, rest, batch) -> (params, state, rest)``."""


class Modes:
    """Every way to train a network on a task and a distillation loss.

    Args:
        encode: ``encode(params, rest, batch)`` returns the logits and the new ``rest``,
            such as BatchNorm statistics.
        heads: ``heads(params, logits, rest, batch)`` returns the two losses.
        optimizer: Optax optimiser of one gradient.
        dot: Form of DOT that replaces it, for two gradients.
    """

    def __init__(
        self,
        encode: Callable[..., tuple[Any, Any]],
        heads: Callable[..., tuple[jax.Array, jax.Array]],
        optimizer: optax.GradientTransformation,
        dot: optax.GradientTransformationExtraArgs,
    ) -> None:
        self.encode, self.heads = encode, heads
        self.optimizer, self.dot = optimizer, dot
        self.one = kdopt.value_and_weighted_grad(self.losses, has_aux=True)
        self.each = kdopt.value_and_grads(self.losses, has_aux=True)

    def losses(self, params: Any, rest: Any, batch: Any) -> Any:
        """Computes both losses and the new ``rest``."""
        logits, moved = self.encode(params, rest, batch)
        return self.heads(params, logits, rest, batch), moved

    def all(self) -> dict[str, tuple[Step, Callable[[Any], Any]]]:
        """Returns by name a step and the function from parameters to its state."""
        sgd = self.optimizer
        balanced = optax.chain(kdopt.min_norm(), sgd)
        rarely = optax.chain(kdopt.every(kdopt.min_norm(), 4), sgd)
        after = optax.chain(sgd, kdopt.dto_kd_amortized())
        again = optax.chain(sgd, kdopt.dto_kd_amortized(signal="same_batch"))
        logits = kdopt.min_norm()
        return {
            "plain": (self.plain, sgd.init),
            "fixed weights": (self.fixed, sgd.init),
            "exact, K = 2": (self.exact(balanced), balanced.init),
            "exact, vmapped": (self.vmapped(balanced), balanced.init),
            "exact, every 4": (self.exact(rarely), rarely.init),
            "DOT": (self.exact(self.dot), self.dot.init),
            "shared": (self.shared(logits), lambda p: (sgd.init(p), logits.init(p))),
            "amortised, next call": (self.amortised(after), after.init),
            "amortised, same batch": (self.amortised(again, True), again.init),
        }

    def plain(self, params: Any, state: Any, rest: Any, batch: Any) -> Any:
        """Uses the gradient of the sum, without kdopt."""

        def total(params: Any) -> Any:
            losses, moved = self.losses(params, rest, batch)
            return sum(losses), moved

        grads, rest = jax.grad(total, has_aux=True)(params)
        return *_finish(self.optimizer, grads, state, params), rest

    def fixed(self, params: Any, state: Any, rest: Any, batch: Any) -> Any:
        """Uses constant weights and one backward pass."""
        weights = jnp.array([0.5, 0.5])
        (_, rest), grads = self.one(params, rest, batch, weights=weights)
        return *_finish(self.optimizer, grads, state, params), rest

    def exact(self, tx: optax.GradientTransformationExtraArgs) -> Step:
        """Makes a step with one backward pass per loss, in sequence."""

        def step(params: Any, state: Any, rest: Any, batch: Any) -> Any:
            (values, rest), grads = self.each(params, rest, batch)
            return *_finish(tx, grads, state, params, values=values), rest

        return step

    def vmapped(self, tx: optax.GradientTransformationExtraArgs) -> Step:
        """Makes a step with both backward passes at once, by ``vmap``."""

        def step(params: Any, state: Any, rest: Any, batch: Any) -> Any:
            def stacked(params: Any) -> Any:
                losses, moved = self.losses(params, rest, batch)
                return jnp.stack(losses), moved

            values, pullback, moved = jax.vjp(stacked, params, has_aux=True)
            (rows,) = jax.vmap(pullback)(jnp.eye(2, dtype=values.dtype))
            grads = tuple(jax.tree.map(lambda row, i=i: row[i], rows) for i in (0, 1))
            return *_finish(tx, grads, state, params, values=values), moved

        return step

    def shared(self, balancer: optax.GradientTransformationExtraArgs) -> Step:
        """Makes a step balanced at the logits, with one backward pass."""
        grad_fn = kdopt.value_and_shared_grad(
            self.encode, self.heads, balancer, has_aux=True
        )

        def step(params: Any, state: Any, rest: Any, batch: Any) -> Any:
            inner, balance = state
            (_, rest), grads, balance = grad_fn(params, rest, batch, state=balance)
            params, inner = _finish(self.optimizer, grads, inner, params)
            return params, (inner, balance), rest

        return step

    def amortised(
        self, tx: optax.GradientTransformationExtraArgs, same_batch: bool = False
    ) -> Step:
        """Makes a step whose weights follow the losses, with one backward pass."""

        def step(params: Any, state: Any, rest: Any, batch: Any) -> Any:
            (values, moved), grads = self.one(
                params, rest, batch, weights=lambda v: kdopt.loss_weights(state, v)
            )
            extra = {"values": values}
            if same_batch:
                extra["value_fn"] = lambda p: self.losses(p, rest, batch)[0]
            return *_finish(tx, grads, state, params, **extra), moved

        return step


def _finish(tx: Any, grads: Any, state: Any, params: Any, **extra: Any) -> Any:
    updates, state = tx.update(grads, state, params, **extra)
    return optax.apply_updates(params, updates), state
