"""What a step logs about the gradients, against the gradients themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from kdlab.train.observe import seen_in
from tests._compiler import OPTIMISED

pytestmark = pytest.mark.usefixtures("standard")

GRADS = jnp.array([-4.0, 1.0, 1.0]), jnp.array([6.0, 1.0, 1.0])
VALUES = jnp.array(2.0), jnp.array(3.0)


def after_a_step(tx):
    params = jnp.zeros(3)
    _, state = jax.jit(tx.update)(GRADS, tx.init(params), params, values=VALUES)
    return state


def test_gram_of_a_balancer_in_a_chain():
    state = after_a_step(optax.chain(kdopt.dto_kd(), optax.sgd(0.1)))
    seen = jax.jit(seen_in)(state, (), VALUES)
    expected = jax.jit(kdopt.diagnostics.summary)(
        kdopt.gram(GRADS), kdopt.loss_weights(state), jnp.stack(VALUES)
    )
    assert len(seen) == len(expected) - 4
    for name, value in seen.items():
        kind, _, key = name.partition("/")
        assert kind == "gradient"
        np.testing.assert_allclose(value, expected[key], rtol=1e-6, err_msg=name)


def test_balancer_at_the_logits_has_another_name():
    balancer = kdopt.min_norm()
    seen = seen_in((), after_a_step(balancer), VALUES)
    assert {name.split("/")[0] for name in seen} == {"shared"}


def test_buffers_of_dot():
    state = after_a_step(optax.chain(kdopt.dot(), optax.scale(-0.1)))
    seen = seen_in(state, (), VALUES)
    update = GRADS[0] + GRADS[1]
    cosine = GRADS[1] @ update / jnp.linalg.norm(GRADS[1]) / jnp.linalg.norm(update)
    np.testing.assert_allclose(seen["buffer/alignment/distill"], cosine, rtol=1e-6)


@pytest.mark.parametrize(
    "tx", [optax.sgd(0.1, momentum=0.9), kdopt.dto_kd_amortized(), kdopt.moco()]
)
def test_others_have_what_they_have(tx):
    """Only buffers: there is no Gram matrix of two losses, or only of running means."""
    state = tx.init(jnp.zeros(3))
    assert {name.split("/")[0] for name in seen_in(state, (), VALUES)} <= {"buffer"}


def test_one_loss_has_no_diagnostics():
    state = kdopt.min_norm(num_losses=1).init(jnp.zeros(3))
    assert seen_in(state, (), VALUES[:1]) == {}


def test_logging_a_step_reads_no_gradient_again():
    """Its cost in the compiled step does not depend on the number of parameters."""
    tx = optax.chain(kdopt.min_norm(), optax.sgd(0.1, momentum=0.9))

    def step(grads, state, params, *, log):
        updates, state = tx.update(grads, state, params)
        seen = seen_in(state, (), VALUES) if log else {}
        return optax.apply_updates(params, updates), state, seen

    def flops(size, log):
        params = jax.ShapeDtypeStruct((size,), jnp.float32)
        arguments = (params, params), jax.eval_shape(tx.init, params), params
        lowered = jax.jit(lambda *a: step(*a, log=log)).lower(*arguments)
        program = lowered.compile(OPTIMISED)
        return program.cost_analysis()["flops"]

    small, large = (flops(n, True) - flops(n, False) for n in (1_000, 100_000))
    assert 0 < small == large
