"""The example of a language model, on networks of a thousand parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from examples import lm

TINY = lm.Size(2, 16, 2)
SETTINGS = lm.Settings(
    data="synthetic", teacher_steps=3, steps=3, batch=4, length=8, seeds=1
)

pytestmark = pytest.mark.usefixtures("standard")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(lm, "TEACHER", TINY)
    monkeypatch.setattr(lm, "STUDENT", TINY)


def test_every_way_is_trained(capsys):
    found = lm.main(SETTINGS)
    assert list(found) == ["teacher", *lm.ways(SETTINGS)]
    values = [value for kind in found.values() for value in kind]
    assert len(values) == 4 and np.all(np.isfinite(values)) and min(values) > 1
    assert "conflict in" in capsys.readouterr().out


def test_sizes():
    for size, millions in ((lm.Size(4, 192, 3), 1.9), (lm.Size(5, 320, 5), 6.3)):
        tree = jax.eval_shape(lambda size=size: lm.init(jax.random.key(0), size, 64))
        count = sum(leaf.size for leaf in jax.tree.leaves(tree))
        assert round(count / 1e6, 1) == millions


def test_training_lowers_the_perplexity():
    """Of words that have few followers."""
    text = jnp.asarray(lm.corpus("synthetic"))
    tokens = text[: 8 * 9].reshape(8, 9)
    start = jax.jit(lm.init, static_argnums=(1, 2))(jax.random.key(0), TINY, 8)

    def teach(params, tokens, denominator, _):
        return lm.task_loss(params, tokens, TINY, denominator), None

    trained, _ = lm.train(start, text, jax.random.key(1), teach, SETTINGS, 60)
    before, after = (float(lm.perplexity(p, tokens, TINY)) for p in (start, trained))
    assert after < before / 4
    np.testing.assert_allclose(lm.task_loss(start, tokens, TINY, 64), np.log(before))


@pytest.mark.slow
def test_micro_batches_add_up():
    """With weights that are fixed, up to the rounding of bfloat16."""
    student, teacher = (lm.init(jax.random.key(i), TINY, 8) for i in range(2))
    tokens = jax.random.randint(jax.random.key(2), (4, 9), 0, 256)
    balancer = kdopt.linear((0.5, 0.5))

    @jax.jit
    def grads_of(tokens):
        fn = jax.grad(lm.distilled_loss, has_aux=True)
        return fn(student, tokens, teacher, balancer, 1.0, 32)[0]

    whole = grads_of(tokens)
    parts = jax.tree.map(jnp.add, grads_of(tokens[:1]), grads_of(tokens[1:]))
    for ours, theirs in zip(
        jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True
    ):
        gap = jnp.linalg.norm((ours - theirs).ravel())
        assert gap <= 0.02 * jnp.linalg.norm(theirs.ravel())


def test_batches_that_cannot_be_divided():
    with pytest.raises(ValueError, match="a multiple of micro_batches = 3, got 4"):
        lm.main(lm.Settings(data="synthetic", batch=4, micro_batches=3))
