"""A user's training loop, for type checkers: what is typed, and what must not err."""

from typing import Any, NamedTuple, assert_type

import jax
import jax.numpy as jnp
import optax

import kdopt


class Params(NamedTuple):
    """Parameters of a user."""

    w: jax.Array


def losses_fn(params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.sum(params.w * x), jnp.sum(params.w)


def with_aux(
    params: Params, x: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], dict[str, jax.Array]]:
    return losses_fn(params, x), {"x": x}


def encode(params: Params, x: jax.Array) -> jax.Array:
    return params.w * x


def heads(params: Params, z: jax.Array, x: jax.Array) -> list[jax.Array | float]:
    return [jnp.sum(z), 0.0]


def train(params: Params, x: jax.Array) -> optax.Params:
    tx = optax.chain(kdopt.dto_kd(), optax.sgd(0.1))
    state = tx.init(params)
    values, grads = kdopt.value_and_grads(losses_fn)(params, x)
    assert_type(values, jax.Array)
    assert_type(grads, tuple[Any, ...])
    updates, state = tx.update(grads, state, params, values=values)
    assert_type(kdopt.loss_weights(state), jax.Array)
    (values, aux), grads = kdopt.value_and_grads(with_aux, has_aux=True)(params, x)
    assert_type(aux, dict[str, jax.Array])
    values, grads = kdopt.value_and_grads(losses_fn, argnums=(0, 1))(
        params, x, present=[True, False]
    )
    values, _ = kdopt.value_and_weighted_grad(losses_fn)(
        params, x, weights=lambda values: 1 / values
    )
    assert_type(values, jax.Array)
    balancer = kdopt.every(kdopt.min_norm(), 4)
    shared = kdopt.value_and_shared_grad(encode, heads, balancer)
    values, _, state = shared(params, x, state=balancer.init(params))
    assert_type(values, jax.Array)
    assert_type(kdopt.gram(grads), jax.Array)
    short = kdopt.value_and_grads(lambda p: (jnp.sum(p["w"]), 0.0))
    values, _ = short({"w": x})
    return optax.apply_updates(params, updates)
