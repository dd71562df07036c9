"""Settings: what they reject, and the schedules and optimisers they make."""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdlab.experiment.loss_table import LossesConfig
from kdlab.experiment.make import make_config
from kdlab.losses.table import loss_weights
from kdlab.runs.claim import claim
from kdlab.runs.compare import CompareConfig
from kdlab.settings.config import METHODS as METHOD_NAMES
from kdlab.settings.config import NAMES
from kdlab.study.config import StudyConfig
from kdlab.train.methods import METHODS, make_numbers
from kdlab.train.schedules import make_schedule

pytestmark = pytest.mark.usefixtures("standard")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "steps"}, "needs --decay-epochs"),
        ({"decay_epochs": (3,)}, "applies to --schedule steps"),
        (
            {"schedule": "steps", "decay_epochs": (9, 30)},
            r"9 30 must increase.*epochs 20",
        ),
        ({"warmup_epochs": 20.0}, "must end before --epochs 20"),
        ({"accumulate": 3}, "does not divide --batch-size 50"),
        ({"alpha": 0.5, "loss_weights": (1.0, 2.0)}, "one of them to None"),
        ({"loss_beta": 2.0}, "applies to --loss dkd"),
        ({"student_temperature": 2.0}, "applies to --loss soft_ce or soft_kl"),
        ({"loss_warmup": 2.0}, "applies to --loss dkd or reviewkd"),
        ({"clip": 1.0}, "leave dot out"),
        ({"clip": 0.0, "methods": ("kd",)}, "--clip must be positive"),
        ({"delta": 0.2}, r"out of \[0, 1\]"),
        ({"ema": 1.0}, r"--ema must lie in \[0, 1\)"),
        ({"weight_decay": float("nan")}, "--weight-decay must not be negative"),
        ({"batch_norm_group": 0}, "--batch-norm-group must be at least 1"),
    ],
)
def test_contradictions_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_config(**settings)


class Wrong:
    """A value whose type no setting has."""

    def __repr__(self):
        return "something wrong"


@pytest.mark.parametrize("field", NAMES)
def test_errors_name_the_option_and_not_the_field(field):
    option = f"--{field.replace('_', '-')}"
    with pytest.raises(ValueError) as error:
        make_config(**{field: Wrong()})
    assert re.match(rf"{option} must be .*, got something wrong\.$", str(error.value))


@pytest.mark.parametrize("field", NAMES)
def test_settings_that_differ_are_named_by_their_options(field, tmp_path):
    """Settings that affect the results must agree; the others may differ."""
    config = make_config(runs=tmp_path)
    claim(config)
    file = config.directory / "config.json"
    earlier = json.loads(file.read_text())
    file.write_text(json.dumps(earlier | {field: "another"}))
    if field not in earlier:
        claim(config)
        return
    option = f"--{field.replace('_', '-')}"
    with pytest.raises(ValueError, match=rf"\({option} was 'another', is "):
        claim(config)


def test_defaults_and_numbers_of_numpy_are_of_the_right_type():
    make_config()
    LossesConfig()
    make_config(seeds=np.int64(2), noise=np.float32(0.5), labels=None, alpha=0)
    with pytest.raises(ValueError, match="--seeds must be a whole number, got True"):
        make_config(seeds=True)
    with pytest.raises(ValueError, match=r"task, distill: .* got 3 weights"):
        make_config(loss_weights=(1.0, 2.0, 3.0))


def test_the_home_of_the_user_is_found(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    paths = {"data_dir": Path("~/data"), "teacher_weights": Path("~/a")}
    config = make_config(runs=Path("~/runs"), **paths)
    assert config.directory == Path("/home/somebody/runs/digits")
    assert config.data.data_dir == Path("/home/somebody/data")
    assert config.networks.teacher_weights == Path("/home/somebody/a")
    compared = CompareConfig((Path("~/a"), Path("b")), out=Path("~/c"))
    assert compared.runs == (Path("/home/somebody/a"), Path("b"))
    assert compared.out == Path("/home/somebody/c")
    assert StudyConfig(data_dir=Path("~/d")).data_dir == Path("/home/somebody/d")


def test_steps_fall_after_the_epoch_that_is_named():
    """As in the references: with 150, epoch 151 is the first at a tenth of the rate."""
    config = make_config(
        epochs=240, learning_rate=0.05, schedule="steps", decay_epochs=(150, 180, 210)
    )
    rate = make_schedule(config.training, steps_per_epoch=782)
    last, first = 782 * 150 - 1, 782 * 150
    np.testing.assert_allclose(
        [rate(0), rate(last), rate(first), rate(782 * 239)],
        [0.05, 0.05, 0.005, 0.00005],
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "steps", "decay_epochs": (4,)}, [0, 1, 2, 2, 2, 2, 2, 2, 0.2]),
        ({}, [0, 1, 2, *(1 + np.cos(np.pi * np.arange(1, 7) / 6))]),
    ],
)
def test_warm_up_comes_before_the_rest(settings, expected):
    config = make_config(epochs=4 if not settings else 5, **settings)
    config = make_config(config, learning_rate=2.0, warmup_epochs=1.0)
    rate = make_schedule(config.training, steps_per_epoch=2)
    np.testing.assert_allclose([rate(i) for i in range(9)], expected, atol=1e-6)


def step(method, rate=0.5, **settings):
    """Returns the update of a method after two steps with constant gradients."""
    config = make_config(**({"methods": (method,), "weight_decay": 0.1} | settings))
    alpha = loss_weights(config.distillation)
    known = make_numbers(
        config.training, weights=alpha, delta=config.distillation.delta
    )
    tx = METHODS[method](known, rate).tx
    params = {"kernel": jnp.array([3.0, -1.0])}
    task, distill = {"kernel": jnp.array([1.0, 2.0])}, {"kernel": jnp.array([2.0, 0.0])}
    state = tx.init(params)
    mixed = {"kernel": alpha[0] * task["kernel"] + alpha[1] * distill["kernel"]}
    grads = mixed if method == "kd" else (task, distill)
    for _ in range(2):
        updates, state = tx.update(grads, state, params, values=jnp.ones(2))
    return updates["kernel"]


@pytest.mark.parametrize(
    "settings", [{}, {"optimizer": "adamw"}, {"nesterov": True}, {"alpha": 0.3}]
)
def test_dot_without_delta_is_the_fixed_sum(settings):
    np.testing.assert_allclose(
        step("dot", delta=0.0, **settings), step("kd", **settings), rtol=1e-5
    )


def test_adamw_and_nesterov_are_those_of_optax():
    params, grads = jnp.array([3.0, -1.0]), jnp.array([1.5, 1.0])

    def expected(tx):
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(grads, state, params)
        return updates

    half = {"alpha": 0.5}
    np.testing.assert_allclose(
        step("kd", optimizer="adamw", **half),
        expected(optax.adamw(0.5, weight_decay=0.1)),
    )
    decayed = optax.chain(
        optax.add_decayed_weights(0.1), optax.sgd(0.5, momentum=0.9, nesterov=True)
    )
    np.testing.assert_allclose(step("kd", nesterov=True, **half), expected(decayed))


def test_clip_bounds_the_combined_gradient():
    free = {"momentum": 0.0, "weight_decay": 0.0, "delta": 0.0, "rate": 1.0}
    assert jnp.linalg.norm(step("kd", **free)) > 1
    np.testing.assert_allclose(
        jnp.linalg.norm(step("kd", clip=0.25, **free)), 0.25, rtol=1e-6
    )


def test_methods_by_default_are_all_there_are():
    assert tuple(METHODS) == METHOD_NAMES


def weights(**settings):
    return loss_weights(make_config(**settings).distillation)


def test_loss_weights_replace_those_of_the_loss():
    assert weights(loss="kd") == (0.1, 0.9)
    assert weights(loss="kd", alpha=0.25) == (0.75, 0.25)
    assert weights(loss="reviewkd", loss_weights=(1.0, 5.0)) == (1.0, 5.0)


def test_run_from_before_a_setting_existed_goes_on(tmp_path):
    config = make_config(runs=tmp_path)
    claim(config)
    file = config.directory / "config.json"
    earlier = json.loads(file.read_text())
    del earlier["clip"], earlier["decay_epochs"]
    file.write_text(json.dumps(earlier))
    claim(config)
    changed = make_config(config, methods=("kd",), clip=1.0)
    with pytest.raises(ValueError, match=r"clip was None, is 1\.0"):
        claim(changed)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (0, 1e-6),
        (1, 2.008e-4),
        (2, 4.006e-4),
        (4, 8.002e-4),
        (5, 9.993216197e-4),
        (50, 9.336825749e-4),
        (150, 5.05e-4),
        (250, 7.631742513e-5),
        (299, 1.002714116e-5),
    ],
)
def test_deits_cosine_is_one_epoch_late(epoch, rate, x64):
    """timm's rate after some epochs, which DeiT's code uses in the next one."""
    training = make_config(
        optimizer="adamw",
        schedule="deit",
        epochs=300,
        learning_rate=1e-3,
        warmup_epochs=5.0,
        warmup_rate=1e-6,
        last_rate=1e-5,
    ).training
    schedule = make_schedule(training, 1251)
    for step in (0, 1250):
        found = schedule(jnp.asarray((epoch + 1) * 1251 + step))
        np.testing.assert_allclose(found, rate, rtol=1e-9)
    np.testing.assert_allclose(schedule(jnp.asarray(17)), 1e-6, rtol=1e-9)


def test_cosine_to_another_rate_than_zero(x64):
    """VkD's: by steps, from 5e-4 to 5e-6 without a warm-up."""
    settings = {"epochs": 300, "learning_rate": 5e-4, "last_rate": 5e-6}
    rate = make_schedule(make_config(**settings).training, 2502)
    np.testing.assert_allclose(rate(2502 * 150), 2.525e-4, rtol=1e-9)
    np.testing.assert_allclose(rate(2502 * 300), 5e-6, rtol=1e-9)
    with pytest.raises(ValueError, match="--decayed applies to --optimizer adamw"):
        make_config(decayed="deit")
