"""CRD: negatives, constants, memory, and the same under data parallelism."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from kdopt import losses
from kdopt.losses._crd import _draw
from tests.losses._inputs import wave

LABELS = np.array([2, 0, 1, 0, 2, 2, 1, 0, 0, 2, 1, 0], np.int32)
INDICES = np.array([3, 0, 6, 9], np.int32)
INIT = jax.jit(losses.crd_init, static_argnames="dim")
DRAW = jax.jit(_draw, static_argnums=3)
STEP = functools.partial(
    jax.jit(losses.crd, static_argnames=("num_negatives", "temperature", "axis_name")),
    num_negatives=7,
    temperature=0.5,
)


@pytest.fixture
def state():
    return INIT(jax.random.key(0), LABELS, dim=3)


@pytest.fixture
def embeddings():
    shape = (4, 3)
    return wave(shape, 0.9, 0.3, 2, np.float32), wave(shape, 0.6, 0.8, 1, np.float32)


def unit(x):
    x = np.asarray(x)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_negatives_are_uniform_over_the_other_classes(state):
    drawn = np.asarray(DRAW(jax.random.key(1), INDICES, state, 6000))
    np.testing.assert_array_equal(drawn[:, 0], INDICES)
    for row, label in zip(drawn[:, 1:], LABELS[INDICES], strict=True):
        others = np.flatnonzero(label != LABELS)
        counts = np.bincount(row, minlength=12)[others]
        assert counts.sum() == 6000
        # Five standard deviations of a multinomial count.
        assert (
            np.abs(counts - 6000 / len(others)).max() < 5 * (6000 / len(others)) ** 0.5
        )


def test_step_by_hand(state, embeddings):
    key = jax.random.key(2)
    drawn = np.asarray(DRAW(key, INDICES, state, 7))
    loss, new = STEP(*embeddings, INDICES, state, key)
    noise, total, constants = 7 / 12, 0.0, []
    memories = state.teacher_memory, state.student_memory
    for v, memory in zip(map(unit, embeddings), memories, strict=True):
        scores = np.exp(np.einsum("bd,bkd->bk", v, np.asarray(memory)[drawn]) / 0.5)
        constants.append(scores.mean() * 12)
        p = scores / constants[-1]
        total -= np.log(p[:, 0] / (p[:, 0] + noise + 1e-7)).sum() / 4
        total -= np.log(noise / (p[:, 1:] + noise + 1e-7)).sum() / 4
    np.testing.assert_allclose(loss, total, rtol=1e-5)
    np.testing.assert_allclose(np.exp(new.log_z), constants, rtol=1e-5)
    expected = np.array(state.student_memory)
    expected[INDICES] = unit(0.5 * expected[INDICES] + 0.5 * unit(embeddings[0]))
    np.testing.assert_allclose(new.student_memory, expected, rtol=1e-5)


def test_constants_are_fixed_by_the_first_batch(state, embeddings):
    _, first = STEP(*embeddings, INDICES, state, jax.random.key(2))
    loss, second = STEP(*embeddings[::-1], INDICES, first, jax.random.key(3))
    np.testing.assert_array_equal(first.log_z, second.log_z)
    fresh, _ = STEP(
        *embeddings[::-1],
        INDICES,
        first._replace(log_z=state.log_z),
        jax.random.key(3),
    )
    assert loss != fresh


def test_masked_rows_leave_no_trace(state, embeddings):
    key = jax.random.key(2)
    masked = np.arange(4) >= 2
    spoilt = [np.where(masked[:, None], np.float32(np.nan), x) for x in embeddings]
    weights = np.array([1.0, 1.0, 0.0, 0.0], np.float32)
    # The padding of a batch often repeats an example.
    indices = np.where(masked, INDICES[0], INDICES)
    loss, new = STEP(*spoilt, indices, state, key, sample_weights=weights)
    plain_loss, plain = STEP(*embeddings, INDICES, state, key, sample_weights=weights)
    np.testing.assert_allclose(loss, plain_loss, rtol=1e-6)
    for ours, theirs in zip(new[:3], plain[:3], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    memories = (np.asarray(x.student_memory) for x in (new, state))
    moved = np.any(np.not_equal(*memories), axis=1)
    np.testing.assert_array_equal(np.flatnonzero(moved), sorted(INDICES[:2].tolist()))
    nothing, same = STEP(*spoilt, indices, state, key, sample_weights=0 * weights)
    assert nothing == 0
    np.testing.assert_array_equal(same.log_z, -jnp.inf)
    np.testing.assert_array_equal(same.student_memory, state.student_memory)


def test_examples_without_a_class_are_left_out(embeddings):
    """As themselves, as negatives, in the memory; so are places that are none."""
    labels = np.where(np.isin(np.arange(12), (3, 5)), np.int32(-1), LABELS)
    state = INIT(jax.random.key(0), labels, dim=3)
    drawn = np.asarray(DRAW(jax.random.key(1), INDICES, state, 500))[1:, 1:]
    assert set(np.unique(drawn)) <= set(np.flatnonzero(labels >= 0))
    key = jax.random.key(2)
    weights = np.array([0.0, 1.0, 1.0, 0.0], np.float32)
    expected, memory = STEP(*embeddings, INDICES, state, key, sample_weights=weights)
    for place in (-1, 12, 10**6):
        # Place 3 has no class; the last is none.
        indices = np.where(np.arange(4) == 3, np.int32(place), INDICES)
        loss, new = STEP(*embeddings, indices, state, key)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
        for ours, theirs in zip(new[:3], memory[:3], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_gradients(state, embeddings):
    def loss(student, teacher, state):
        return STEP(student, teacher, INDICES, state, jax.random.key(2))[0]

    _, state = STEP(*embeddings, INDICES, state, jax.random.key(2))
    fn = jax.jit(jax.grad(loss, argnums=(0, 1)))
    slopes = fn(*embeddings, state)
    # Both directions are trained, and only turned: never lengthened.
    for slope, x in zip(slopes, embeddings, strict=True):
        assert np.any(slope)
        along = np.sum(np.asarray(slope) * np.asarray(x), axis=1)
        np.testing.assert_allclose(along, 0, atol=1e-5)
    zeros = np.zeros((4, 3), np.float32)
    assert np.isfinite(fn(zeros, embeddings[1], state)[0]).all()


def test_replicas_write_one_memory(state, embeddings, standard):
    """Under shard_map with the axis named, and under jit with a sharded batch."""
    mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,))
    rows, everywhere = PartitionSpec("data"), PartitionSpec()

    def step(student, teacher, indices, state, key):
        loss, state = STEP(student, teacher, indices, state, key, axis_name="data")
        return jax.lax.pmean(loss, "data"), state

    mapped = jax.jit(
        jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(rows, rows, rows, everywhere, everywhere),
            out_specs=everywhere,
        )
    )
    key = jax.random.key(2)
    loss, new = mapped(*embeddings, INDICES, state, key)
    _, alone = STEP(*embeddings, INDICES, state, key)
    np.testing.assert_allclose(new.student_memory, alone.student_memory, rtol=1e-6)
    np.testing.assert_allclose(new.teacher_memory, alone.teacher_memory, rtol=1e-6)
    # The constants come from the negatives of both halves.
    halves = [
        STEP(
            *(np.asarray(x)[half] for x in embeddings),
            INDICES[half],
            state,
            jax.random.fold_in(key, replica),
        )[1].log_z
        for replica, half in enumerate((slice(0, 2), slice(2, 4)))
    ]
    expected = np.mean(np.exp(halves), axis=0)
    np.testing.assert_allclose(np.exp(new.log_z), expected, rtol=1e-5)
    assert np.isfinite(loss)

    sharded = jax.device_put((*embeddings, INDICES), NamedSharding(mesh, rows))
    plain_loss, plain = STEP(*embeddings, INDICES, state, key)
    loss, new = STEP(*sharded, state, key)
    np.testing.assert_allclose(loss, plain_loss, rtol=1e-5)
    np.testing.assert_allclose(new.student_memory, plain.student_memory, rtol=1e-5)


def test_survives_a_checkpoint(state, embeddings, tmp_path, standard):
    """Restored after a step, it goes on to the same bits."""
    _, state = STEP(*embeddings, INDICES, state, jax.random.key(2))
    with ocp.StandardCheckpointer() as saver:
        saver.save(tmp_path / "crd", state)
        saver.wait_until_finished()
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        restored = saver.restore(tmp_path / "crd", shapes)
    assert type(restored) is losses.CrdState
    ends = [
        STEP(*embeddings[::-1], INDICES[::-1], memory, jax.random.key(3))
        for memory in (state, restored)
    ]
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_small_integers_count_far_enough():
    # Data sets store labels in a byte; there are more examples than that.
    state = INIT(jax.random.key(0), (np.arange(300) % 3).astype(np.int8), dim=3)
    drawn = np.asarray(DRAW(jax.random.key(1), jnp.array([299]), state, 200))[0]
    assert drawn[1:].max() > 255
    assert np.all(drawn[1:] % 3 != 299 % 3)


def test_width_must_be_that_of_the_memory(state):
    x = np.ones((4, 2), np.float32)
    with pytest.raises(ValueError, match="the memory, 3, got 2"):
        STEP(x, x, INDICES, state, jax.random.key(0))
