"""The search for loose products finds them wherever they hide."""

import jax
import jax.numpy as jnp
import pytest

from tests._precision import loose_products, products

X = jax.ShapeDtypeStruct((3, 3), jnp.float32)


def loose(x):
    return x @ x


def exact(x):
    return jnp.matmul(x, x, precision="highest")


@jax.custom_jvp
def custom(x):
    return x


@custom.defjvp
def _(primals, tangents):
    return primals[0], loose(primals[0]) @ tangents[0]


HIDING = {
    "plain": loose,
    "einsum": lambda x: jnp.einsum("ij,kj->ik", x, x),
    "half exact": lambda x: jax.lax.dot(x, x, precision=("highest", "default")),
    "half precision": lambda x: loose(x.astype(jnp.bfloat16)),
    "jit": jax.jit(loose),
    "scan": lambda x: jax.lax.scan(lambda c, _: (loose(c), None), x, length=2)[0],
    "while": lambda x: jax.lax.while_loop(lambda c: c[0, 0] < 1, loose, x),
    "cond": lambda x: jax.lax.cond(x[0, 0] > 0, exact, loose, x),
    "checkpoint": jax.checkpoint(loose),
    "custom derivative": jax.grad(lambda x: custom(x).sum()),
    "convolution": lambda x: jnp.convolve(x[0], x[1]),
    "vmap": jax.vmap(lambda row: row @ jnp.ones((3, 2))),
}


@pytest.mark.parametrize("name", HIDING)
def test_loose_products_are_found(name):
    assert loose_products(HIDING[name], X)


@pytest.mark.parametrize(
    "fn",
    [
        exact,
        jax.value_and_grad(lambda x: exact(x).sum()),
        jax.hessian(lambda x: exact(x).sum()),
        jax.jit(lambda x: jax.lax.scan(lambda c, _: (exact(c), None), x, length=2)[0]),
        lambda x: (x > 0).astype(int) @ (x > 0).astype(int),
        custom,
    ],
)
def test_exact_ones_are_not(fn):
    assert loose_products(fn, X) == []


def test_products_are_counted():
    assert products(jax.grad(lambda x: exact(x).sum()), X) == 3
