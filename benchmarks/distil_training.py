"""Trains several students at once; an epoch is one program on the device."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import kdopt
from benchmarks.distil_network import Network
from kdlab.data.augmentation.crops import random_crop_flip
from kdopt import losses

MOMENTUM, DECAY, TEMPERATURE = 0.9, 5e-4, 4.0
TASK, DISTILL = 0.1, 0.9
"""Fixed weights of the losses."""

Split = tuple[jax.Array, jax.Array]
"""Images ``[n, h, w, c]``, uint8, and labels ``[n]``."""


class Method(NamedTuple):
    """How a student is trained.

    Attributes:
        tx: Maps the learning rate to the transform of the parameters.
        weights: Fixed weights of the losses, for one backward pass; None: one per loss.
        balancer: Balancer at the logits, used instead.
        distils: Whether there is a teacher.
    """

    tx: Callable[[Any], optax.GradientTransformationExtraArgs]
    weights: tuple[float, ...] | None = None
    balancer: optax.GradientTransformationExtraArgs | None = None
    distils: bool = True


def _sgd(rate: Any) -> optax.GradientTransformationExtraArgs:
    return optax.chain(
        optax.add_decayed_weights(DECAY),
        optax.trace(MOMENTUM),
        optax.scale_by_learning_rate(rate),
    )


def _dot(rate: Any) -> optax.GradientTransformationExtraArgs:
    return optax.chain(
        kdopt.each(optax.scale(TASK), optax.scale(DISTILL)),
        kdopt.each(optax.add_decayed_weights(DECAY), optax.identity()),
        kdopt.dot(MOMENTUM),
        optax.scale_by_learning_rate(rate),
    )


METHODS = {
    "labels": Method(_sgd, weights=(1.0,), distils=False),
    "kd": Method(_sgd, weights=(TASK, DISTILL)),
    "dot": Method(_dot),
    "dto_kd_shared": Method(_sgd, balancer=kdopt.dto_kd(rescale="convex")),
}


class Trainer:
    """The students of one method, one per seed.

    Args:
        network: Network of the students.
        method: How they are trained.
        batch: Images per step.
        seeds: Number of students.
        teacher: The teacher's network.
        together: Whether one program trains all at once, or one after the other.
    """

    def __init__(
        self,
        network: Network,
        method: Method,
        batch: int,
        seeds: int,
        teacher: Network | None = None,
        together: bool = True,
    ) -> None:
        self._network, self._method, self._teacher = network, method, teacher
        self._batch, self._seeds, self._together = batch, seeds, together
        axes = (0, None, None, 0, None)
        epoch = jax.vmap(self._epoch, axes) if together else self._epoch
        self._trained = jax.jit(epoch, donate_argnums=0)
        test = jax.vmap(self._test, (0, None)) if together else self._test
        self._tested = jax.jit(test)

    def start(self) -> Any:
        """Makes the initial states, stacked over seeds or as a list."""

        def one(seed: int) -> Any:
            params, rest = self._network.start(seed)
            with jax.default_device(jax.devices("cpu")[0]):
                state = self._method.tx(0.0).init(params)
                balancer = self._method.balancer
                balance = balancer.init(params) if balancer else ()
            return jax.tree.map(np.asarray, (params, rest, state, balance))

        states = [one(seed) for seed in range(self._seeds)]
        if not self._together:
            return jax.device_put(states)
        return jax.device_put(jax.tree.map(lambda *x: np.stack(x), *states))

    def compile(self, state: Any, data: tuple[Split, Split], teacher: Any) -> None:
        """Compiles both programs; threads may compile several methods concurrently."""
        one = state if self._together else state[0]
        keys = jax.random.split(jax.random.key(7), self._seeds)
        key = keys if self._together else keys[0]
        args = one, data[0], teacher, key, jnp.float32(0)
        self._trained = self._trained.lower(*args).compile()
        self._tested = self._tested.lower(one, data[1]).compile()

    def epoch(
        self, state: Any, data: Split, teacher: Any, epoch: int, rate: float
    ) -> Any:
        """Trains one epoch, each student in its own order of the images."""
        key = jax.random.fold_in(jax.random.key(7), epoch)
        keys, rate = jax.random.split(key, self._seeds), jnp.float32(rate)
        if self._together:
            return self._trained(state, data, teacher, keys, rate)
        pairs = zip(state, keys, strict=True)
        return [self._trained(one, data, teacher, key, rate) for one, key in pairs]

    def accuracy(self, state: Any, data: Split) -> np.ndarray:
        """Computes the accuracy of each student, ``[seeds]``."""
        if self._together:
            return np.asarray(self._tested(state, data))
        return np.array([self._tested(one, data) for one in state])

    def weights(self, state: Any, seed: int = 0) -> tuple[Any, Any]:
        """Returns parameters and statistics of one student."""
        if self._together:
            return jax.tree.map(lambda x: x[seed], state[:2])
        return state[seed][:2]

    def _epoch(self, state: Any, data: Split, teacher: Any, key: Any, rate: Any) -> Any:
        order_key, key = jax.random.split(key)
        steps = len(data[0]) // self._batch
        order = jax.random.permutation(order_key, len(data[0]))[: steps * self._batch]

        def body(state: Any, xs: Any) -> tuple[Any, None]:
            indices, key = xs
            images = random_crop_flip(key, data[0][indices])
            return self._step(state, images, data[1][indices], teacher, rate), None

        xs = order.reshape(steps, self._batch), jax.random.split(key, steps)
        return jax.lax.scan(body, state, xs)[0]

    def _step(
        self, state: Any, images: Any, labels: Any, teacher: Any, rate: Any
    ) -> Any:
        params, rest, opt_state, balance = state
        method, tx = self._method, self._method.tx(rate)
        batch = images, labels
        if method.distils:
            batch = *batch, self._teacher.logits(teacher, images)
        extra = {}
        if method.weights:
            grad_fn = kdopt.value_and_weighted_grad(self._losses, has_aux=True)
            fixed = jnp.array(method.weights)
            (_, rest), grads = grad_fn(params, rest, *batch, weights=fixed)
        elif method.balancer:
            grad_fn = kdopt.value_and_shared_grad(
                self._encode, self._heads, method.balancer, has_aux=True
            )
            out = grad_fn(params, rest, *batch, state=balance)
            (_, rest), grads, balance = out
        else:
            grad_fn = kdopt.value_and_grads(self._losses, has_aux=True)
            (values, rest), grads = grad_fn(params, rest, *batch)
            extra = {"values": values}
        updates, opt_state = tx.update(grads, opt_state, params, **extra)
        return optax.apply_updates(params, updates), rest, opt_state, balance

    def _encode(self, params: Any, rest: Any, images: Any, *_: Any) -> tuple[Any, Any]:
        return self._network.train(params, rest, images)

    def _heads(
        self,
        params: Any,
        logits: Any,
        rest: Any,
        images: Any,
        labels: Any,
        *teacher: Any,
    ) -> tuple[jax.Array, ...]:
        del params, rest, images
        task = losses.cross_entropy(logits, labels)
        return task, *(losses.kd(logits, t, temperature=TEMPERATURE) for t in teacher)

    def _losses(self, params: Any, rest: Any, *batch: Any) -> tuple[Any, Any]:
        logits, moved = self._encode(params, rest, *batch)
        return self._heads(params, logits, rest, *batch), moved

    def _test(self, state: Any, data: Split) -> jax.Array:
        size = min(1000, len(data[0]))
        count = len(data[0]) // size
        parts = jax.tree.map(
            lambda x: x[: count * size].reshape(count, size, *x.shape[1:]), data
        )

        def right(part: Split) -> jax.Array:
            scores = self._network.logits(state[:2], part[0])
            return jnp.mean(jnp.argmax(scores, -1) == part[1])

        return jnp.mean(jax.lax.map(right, parts))
