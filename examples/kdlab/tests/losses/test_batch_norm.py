"""BatchNorm in groups equals that of as many replicas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from _students import students
from kdlab.devices.mesh import make_layout
from kdlab.models._blocks import BatchNorm

pytestmark = pytest.mark.usefixtures("standard")

GROUP = 4


def images():
    return jnp.asarray(
        np.random.default_rng(0).normal(3, 2, (16, 5, 5, 3)), jnp.float32
    )


def norm(**options):
    return BatchNorm(3, momentum=0.9, rngs=nnx.Rngs(0), **options)


def test_each_group_is_normalised_as_a_batch_of_its_own():
    grouped, x = norm(group=GROUP), images()
    y = grouped(x)
    alone = [norm() for _ in range(len(x) // GROUP)]
    parts = [layer(part) for layer, part in zip(alone, jnp.split(x, 4), strict=True)]
    np.testing.assert_allclose(y, jnp.concatenate(parts), rtol=1e-4, atol=1e-5)
    for name in ("mean", "var"):
        expected = np.mean([getattr(layer, name)[...] for layer in alone], axis=0)
        np.testing.assert_allclose(getattr(grouped, name)[...], expected, rtol=1e-5)


def test_running_statistics_serve_any_batch():
    grouped, plain, x = norm(group=GROUP), norm(), images()[:7]
    for layer in (grouped, plain):
        layer.eval()
    np.testing.assert_array_equal(grouped(x), plain(x))


def test_groups_do_not_depend_on_the_devices(monkeypatch):
    """Two images per device: each group is spread over two devices."""
    monkeypatch.setattr("kdlab.devices.mesh.list_devices", jax.devices)
    graphdef, state = nnx.split(norm(group=GROUP))

    @jax.jit
    def run(state, x):
        layer = nnx.merge(graphdef, state)
        return layer(x), nnx.state(layer)

    expected = run(state, images())
    found = run(state, make_layout().divide(images()))
    for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="groups of 4 images cannot divide a batch"):
        norm(group=GROUP)(images()[:6])


def test_setting_reaches_every_layer():
    pupils = students(student="resnet8", batch_norm_group=GROUP)
    model = nnx.merge(*pupils._pupil(0))
    layers = [node for _, node in nnx.iter_graph(model) if isinstance(node, BatchNorm)]
    assert layers and all(layer.group == GROUP for layer in layers)
