"""The same training on one device and on eight, with arrays replicated or sharded."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from _students import students, train
from kdlab.devices import mesh

pytestmark = pytest.mark.usefixtures("standard")

METHODS = ["kd", "dto_kd", "dto_kd_shared"]  # one, two and shared backward passes
DEVICES = 8


@pytest.fixture(autouse=True)
def _all_devices(monkeypatch):
    monkeypatch.setattr("kdlab.devices.mesh.list_devices", jax.devices)


@functools.cache
def on_one_device(method):
    return train(students(devices=1), method, steps=4)[1]


@pytest.mark.parametrize("shard_params", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_eight_devices_train_as_one_does(method, shard_params):
    """Same augmentations, order and padding: the last batch is partial."""
    expected = on_one_device(method)
    state, found = train(students(shard_params=shard_params), method, steps=4)
    for ours, theirs in zip(found, expected, strict=True):
        for name in theirs:
            # Weights and diagnostics are quotients of sums that nearly cancel.
            tolerance = 1e-5 if name.startswith("loss/") else 1e-4
            np.testing.assert_allclose(
                ours[name], theirs[name], tolerance, tolerance, err_msg=name
            )
    kernel = state.params["network"]["hidden"][0]["kernel"][...]
    spec = P(mesh.AXIS) if shard_params else P()
    assert kernel.sharding.spec == spec
    assert len(kernel.sharding.device_set) == DEVICES


def test_evaluation_does_not_depend_on_the_devices():
    """The test set is not a multiple of eight."""
    one, all_of_them = students(devices=1), students()
    results = [
        s.problem.evaluate(
            s.state(s.plan("kd"), 0), s.run("kd", 0).test, with_teacher=True
        )
        for s in (one, all_of_them)
    ]
    for name in results[0]:  # a divergence is a difference of larger logarithms
        np.testing.assert_allclose(*(r[name] for r in results), rtol=1e-5, atol=1e-6)


def test_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"50.*8 devices.*size of 48 or 56, or 2 dev"):
        students(batch_size=50)
    with pytest.raises(ValueError, match=r"16.*8 devices in 4 parts.*size of 32"):
        students(accumulate=4)
    students(batch_size=50, devices=2)


def test_devices_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="choose 1 to 8"):
        mesh.make_layout(9)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((64, 128), P(None, mesh.AXIS)),
        ((128, 64), P(mesh.AXIS)),
        ((30, 128), P(None, mesh.AXIS)),
        ((30, 300), P()),  # eight divides neither
        ((64,), P()),  # too small to be worth it
    ],
)
def test_longest_axis_that_divides_is_divided(shape, spec):
    layout = mesh.make_layout(shard_params=True)
    assert layout.place(np.zeros(shape, np.float32)).sharding.spec == spec
    assert mesh.make_layout().place(np.zeros(shape)).sharding.spec == P()


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (("localhost:1", None, None), "--num-processes and --process-id"),
        ((None, 2, 0), "--coordinator"),
    ],
)
def test_half_a_start_of_processes_names_the_other_half(given, missing):
    with pytest.raises(ValueError, match=missing):
        mesh.start_processes(*given)
