"""Adapters: shapes from examples, and a gradient to every parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from kdlab.losses import adapters, projectors
from kdopt import losses


def maps(*shapes):
    key = jax.random.key(0)
    return [jax.random.normal(key, (2, *shape)) for shape in shapes]


OURS = maps((8, 8, 3), (4, 4, 4), (1, 1, 5))
THEIRS = maps((8, 8, 4), (3, 3, 6), (1, 1, 7))
VECTORS = [x.mean((1, 2)) for x in (OURS[-1], THEIRS[-1])]


def vid(adapter):
    return losses.vid(*adapter(OURS), THEIRS)


def ofd(adapter):
    margins = [jnp.full(x.shape[-1], -0.5) for x in THEIRS]
    return losses.ofd(adapter(OURS), THEIRS, margins)


def review(adapter):
    fused = adapter(OURS)
    assert [x.shape for x in fused] == [x.shape for x in THEIRS]
    return losses.hcl(fused, THEIRS)


def crd(adapter):
    state = losses.crd_init(jax.random.key(1), jnp.arange(6) % 3, dim=4)
    key = jax.random.key(2)
    index = jnp.array([0, 4])
    return losses.crd(*adapter(*VECTORS), index, state, key, num_negatives=3)[0]


# Built from descriptions, used on arrays.
STUDENT, TEACHER, WIDTHS = jax.eval_shape(lambda: (OURS, THEIRS, VECTORS))
CASES = {
    "hint": (
        lambda r: adapters.HintRegressor(STUDENT[1], TEACHER[1], rngs=r),
        lambda adapter: losses.fitnet(adapter(OURS[1]), THEIRS[1]),
    ),
    "vid": (lambda r: adapters.VidRegressor(STUDENT, TEACHER, rngs=r), vid),
    "ofd": (lambda r: adapters.OfdConnectors(STUDENT, TEACHER, rngs=r), ofd),
    "review": (lambda r: adapters.ReviewFusion(STUDENT, TEACHER, rngs=r), review),
    "crd": (lambda r: adapters.CrdEmbeddings(*WIDTHS, dim=4, rngs=r), crd),
    "vkd": (
        lambda r: projectors.OrthogonalProjector(*WIDTHS, rngs=r),
        lambda adapter: losses.vkd(adapter(VECTORS[0]), VECTORS[1]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_loss_trains_every_parameter(name, standard):
    build, loss = CASES[name]
    adapter = nnx.jit(build)(nnx.Rngs(0))
    value, grads = nnx.jit(nnx.value_and_grad(loss))(adapter)
    assert np.isfinite(value)
    paths = jax.tree_util.tree_leaves_with_path(grads)
    assert paths
    idle = [path for path, leaf in paths if not np.any(leaf)]
    assert all(np.isfinite(leaf).all() for _, leaf in paths)
    # VID's ReLUs may be off at the one position of the pooled stage, and batch
    # normalisation cancels a bias before it.
    assert len(idle) <= (1 if name in ("vid", "hint") else 0), idle


@pytest.mark.parametrize("theirs", [8, 4, 16, 5, 11])
def test_hint_comes_out_in_the_size_of_the_teacher(theirs, standard):
    ours, teacher = maps((8, 8, 3), (theirs, theirs, 2))
    hint = adapters.HintRegressor(ours, teacher, rngs=nnx.Rngs(0))(ours)
    # An odd larger map is left for the loss to pool.
    expected = 8 if theirs == 11 else theirs
    assert hint.shape == (2, expected, expected, 2)
    assert np.isfinite(losses.fitnet(hint, teacher))


def test_first_variance_of_vid():
    adapter = adapters.VidRegressor(
        OURS[:1], THEIRS[:1], variance=5.0, rngs=nnx.Rngs(0)
    )
    np.testing.assert_allclose(
        jax.nn.softplus(adapter.scales[0][...]) + 1e-5, 5, rtol=1e-5
    )


@pytest.mark.parametrize("widths", [(3, 5), (5, 3), (4, 4)])
def test_orthogonal_projector_stays_orthonormal(widths, standard):
    x, y = (jnp.ones((2, n)) for n in widths)
    adapter = projectors.OrthogonalProjector(x, y, rngs=nnx.Rngs(0))
    adapter.free[...] += jax.random.normal(jax.random.key(3), adapter.free.shape)
    p = adapter.matrix()
    assert p.shape == widths
    gram = p @ p.T if widths[0] <= widths[1] else p.T @ p
    np.testing.assert_allclose(gram, np.eye(min(widths)), atol=1e-5)


def test_width_projector(standard):
    x, y = VECTORS
    same = adapters.WidthProjector(x, x, rngs=nnx.Rngs(0))
    assert same(x) is x
    wide = adapters.WidthProjector(x, y, rngs=nnx.Rngs(0))
    assert wide(x).shape == y.shape
