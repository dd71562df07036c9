"""Losses of a linear head in chunks: values, gradients, memory, who gets what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import kdopt
from kdopt import losses
from tests._compiler import OPTIMISED
from tests._turns import in_turn

B, T, D, C = 2, 7, 5, 9


def of_logits(student, teacher, labels, **options):
    task = losses.cross_entropy(student, labels, **options)
    return task, losses.kd(student, teacher, temperature=2.0, **options)


def chunked(student, teacher, labels, weights=None, size=4, **options):
    return losses.linear_losses(
        of_logits,
        student,
        labels,
        teacher=teacher,
        sample_weights=weights,
        chunk_size=size,
        **options,
    )


def whole(student, teacher, labels, weights=None, **options):
    logits = (hidden @ head for hidden, head in (student, teacher))
    return jnp.stack(of_logits(*logits, labels, sample_weights=weights, **options))


def inputs(dtype=np.float32):
    rng = np.random.default_rng(0)
    shapes = (B, T, D), (D, C), (B, T, D + 1), (D + 1, C)
    h, w, h_t, w_t = (jnp.asarray(rng.normal(size=s).astype(dtype)) for s in shapes)
    labels = jnp.asarray(rng.integers(0, C, (B, T)))
    weights = jnp.asarray(rng.integers(0, 3, (B, T)).astype(dtype))
    return (h, w), (h_t, w_t), labels, weights


DENOMINATORS = ("mean", "count", 5)


def differentiated(fn, *args):
    """Values and gradients by each denominator, of one program."""

    @jax.jit
    def by_denominator(*args):
        fns = [functools.partial(fn, denominator=d) for d in DENOMINATORS]
        return [kdopt.value_and_grads(of_one)(*args) for of_one in fns]

    return dict(zip(DENOMINATORS, by_denominator(*args), strict=True))


@functools.cache
def by_the_logits():
    return differentiated(whole, *inputs(np.float64))


@pytest.mark.parametrize("size", in_turn([1, 4, 6, 14, 100], 1))
def test_values_and_gradients_are_those_of_the_logits(size, x64):
    """Of linear_losses and of the whole logits, loss by loss, by both arguments."""
    found = differentiated(functools.partial(chunked, size=size), *inputs(np.float64))
    for denominator, (values, grads) in found.items():
        expected, slopes = by_the_logits()[denominator]
        np.testing.assert_allclose(values, expected, rtol=1e-12)
        for ours, theirs in zip(
            jax.tree.leaves(grads), jax.tree.leaves(slopes), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_denominators_of_their_own(x64):
    student, teacher, labels, _ = inputs(np.float64)

    def own(s, t, y, sample_weights, denominator):
        task = losses.cross_entropy(s, y, sample_weights=sample_weights, denominator=3)
        rows = {"sample_weights": sample_weights, "denominator": denominator}
        return task, losses.reverse_kl(s, t, **rows)

    @jax.jit
    def both(student, teacher):
        s, t = (hidden @ head for hidden, head in (student, teacher))
        whole = own(s, t, labels, sample_weights=None, denominator=7)
        pair = {"teacher": teacher, "denominator": 7}
        return losses.linear_losses(own, student, labels, **pair), whole

    values, expected = both(student, teacher)
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_stored_teachers_and_no_teacher(x64):
    student, teacher, labels, weights = inputs(np.float64)

    def of_stored(s, y, stored, indices, total, **options):
        top = losses.top_k_kl(
            s, stored, indices=indices, log_normalizer=total, **options
        )
        return losses.cross_entropy(s, y, **options), top

    @jax.jit
    def both(student, teacher):
        s, t = (hidden @ head for hidden, head in (student, teacher))
        stored, indices = jax.lax.top_k(t, 3)
        values = losses.linear_losses(
            of_stored,
            student,
            *(labels, stored, indices, jax.nn.logsumexp(t, axis=-1)),
            sample_weights=weights,
            chunk_size=4,
        )
        return values[1], losses.top_k_kl(s, t, k=3, sample_weights=weights)

    value, expected = both(student, teacher)
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    with pytest.raises(ValueError, match="tuple of K scalar losses, got"):
        losses.linear_losses(lambda s, y, **options: s, student, labels)


def test_the_teacher_gets_no_gradient():
    student, teacher, labels, weights = inputs()
    total = jax.jit(jax.grad(lambda t: chunked(student, t, labels, weights).sum()))
    slopes = total(teacher)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slopes))


def test_half_precision_is_summed_in_single():
    """The gradient of the head over many chunks too."""
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(512, D)), jnp.bfloat16)
    head = jnp.asarray(rng.normal(size=(D, C)), jnp.bfloat16)
    labels = jnp.asarray(rng.integers(0, C, 512))

    def loss(head, hidden, size):
        pair = hidden, head
        call = functools.partial(chunked, pair, pair, labels, size=size)
        return call(denominator=1)[0]

    fn = jax.jit(jax.value_and_grad(loss), static_argnums=2)
    value, slope = fn(head, hidden, 1)
    wide = (x.astype(jnp.float32) for x in (head, hidden))
    expected, slopes = fn(*wide, 512)
    assert value.dtype == jnp.float32 and slope.dtype == jnp.bfloat16
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    # One rounding to bfloat16, not one a chunk.
    np.testing.assert_allclose(slope.astype(jnp.float32), slopes, rtol=2**-7, atol=0.05)


@pytest.mark.parametrize("spec", [("data", None), (None, "data")])
def test_on_an_explicit_mesh(spec):
    """Rows or tokens divided, and the vocabulary too."""
    student, teacher, labels, weights = jax.tree.map(np.asarray, inputs())
    student, teacher = ((h[:, :6], w[:, :8]) for h, w in (student, teacher))
    labels, weights = labels[:, :6] % 8, weights[:, :6]
    fn = jax.jit(kdopt.value_and_grads(chunked))
    values, grads = fn(student, teacher, labels, weights)
    mesh = jax.make_mesh((2, 4), ("data", "model"), (AxisType.Explicit,) * 2)
    rows, heads = NamedSharding(mesh, P(*spec)), NamedSharding(mesh, P(None, "model"))
    with jax.set_mesh(mesh):
        put = [
            (jax.device_put(h, rows), jax.device_put(w, heads))
            for h, w in (student, teacher)
        ]
        got = fn(*put, *(jax.device_put(x, rows) for x in (labels, weights)))
    for ours, theirs in zip(
        jax.tree.leaves(got), jax.tree.leaves((values, grads)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def temporaries(fn, *args):
    compiled = jax.jit(fn).lower(*args).compile(OPTIMISED)
    return compiled.memory_analysis().temp_size_in_bytes


def shapes(tokens, width, words):
    def pair():
        hidden = jax.ShapeDtypeStruct((tokens, width), jnp.float32)
        return hidden, jax.ShapeDtypeStruct((width, words), jnp.float32)

    return pair(), pair(), jax.ShapeDtypeStruct((tokens,), jnp.int32)


def test_memory_of_two_gradients():
    """At 4,096 tokens and 32,768 words, one twentieth of that of the logits."""
    args = shapes(4096, 256, 32768)
    ours = functools.partial(chunked, size=128)
    one = temporaries(kdopt.value_and_grads(ours), *args)
    naive = temporaries(kdopt.value_and_grads(whole), *args)
    assert naive >= 6 * 4096 * 32768 * 4
    assert 20 * one <= naive
    # One gradient of the sum needs hardly less: the losses stay apart for nothing.
    total = temporaries(jax.grad(lambda *args: ours(*args).sum()), *args)
    assert one <= 1.25 * total


def shared_call(fn, balancer, **options):
    def encode(params, batch):
        return jnp.tanh(batch[0] @ params["body"])

    def losses_fn(params, z, batch):
        return fn((z, params["head"]), batch[1], batch[2])

    return kdopt.value_and_shared_grad(encode, losses_fn, balancer, **options)


def test_hidden_states_are_the_shared_representation(x64):
    """The head is reached directly, and gets the weighted sum of its K gradients.

    The weights are those found at the hidden states; with ``weigh_heads=False`` it gets
    the plain sum.
    """
    (h, w), teacher, labels, _ = inputs(np.float64)
    rng = np.random.default_rng(1)
    params = {"body": rng.normal(size=(D, D)), "head": w}
    batch = h, teacher, labels
    balancer = kdopt.dto_kd()
    state = balancer.init(h)

    def call(fn, **options):
        shared = jax.jit(shared_call(fn, balancer, **options))
        return shared(params, batch, state=state)

    values, grads, new = call(chunked)
    expected, slopes, _ = call(whole)
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    for name in params:
        np.testing.assert_allclose(grads[name], slopes[name], atol=1e-10)

    @jax.jit
    def by_hand(z, w, values):
        _, of_head = kdopt.value_and_grads(lambda w: whole((z, w), teacher, labels))(w)
        _, at_z = kdopt.value_and_grads(lambda z: whole((z, w), teacher, labels))(z)
        return of_head, kdopt.dto_kd_weights(kdopt.gram(at_z), values)

    z = np.tanh(np.asarray(h) @ params["body"])
    of_head, weights = jax.tree.map(np.asarray, by_hand(z, w, values))
    np.testing.assert_allclose(new.loss_weights, weights, rtol=1e-9)
    np.testing.assert_allclose(
        grads["head"], weights[0] * of_head[0] + weights[1] * of_head[1], atol=1e-10
    )
    _, plain, _ = call(chunked, weigh_heads=False)
    np.testing.assert_allclose(plain["head"], of_head[0] + of_head[1], atol=1e-10)
    np.testing.assert_allclose(plain["body"], grads["body"], atol=1e-12)


def test_memory_in_the_shared_call():
    (hidden, head), teacher, labels = shapes(4096, 256, 32768)
    params = {"body": jax.ShapeDtypeStruct((256, 256), jnp.float32), "head": head}
    balancer = kdopt.dto_kd()
    state = jax.eval_shape(balancer.init, hidden)
    sizes = [
        temporaries(
            lambda p, b, s, fn=fn: shared_call(fn, balancer)(p, b, state=s),
            *(params, (hidden, teacher, labels), state),
        )
        for fn in (functools.partial(chunked, size=128), whole)
    ]
    assert 15 * sizes[0] <= sizes[1]


def test_wrong_arguments_are_named():
    student, teacher, labels, weights = inputs()
    hidden, head = student
    for args, message in (
        ((hidden, teacher, labels), "student"),
        (((hidden, head.T), teacher, labels), "a head when it is transposed"),
        ((student, (teacher[0][:, :3], teacher[1]), labels), "teacher must hold"),
        ((student, teacher, labels[:, :3]), r"rows\[0\] must hold an entry"),
        ((student, teacher, labels, weights[:, :3]), "sample_weights must have"),
    ):
        with pytest.raises(Exception, match=message):
            chunked(*args)
    with pytest.raises(ValueError, match="chunk_size must be positive"):
        chunked(student, teacher, labels, size=0)
