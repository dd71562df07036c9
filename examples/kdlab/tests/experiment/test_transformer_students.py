"""Distilled transformers in the trainer: three losses, a dead one, and resuming."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

import _students
from kdlab.data import load
from kdlab.experiment.make import make_config
from kdlab.experiment.networks import make_model
from kdlab.experiment.students import Students, Teacher
from kdlab.models.network import Network

pytestmark = pytest.mark.usefixtures("standard")

SETTINGS = {
    "dataset": "synthetic-tiny",
    "augment": "crop_flip",
    "labels": None,
    "noise": 0.0,
    "teacher": "cnn_teacher",
    "student": "examples.fashion_vit:student",
    "epochs": 2,
    "batch_size": 64,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "decayed": "deit",
    "mixup": 0.8,
    "cutmix": 1.0,
    "smoothing": 0.1,
    "erasing": 0.25,
    "repeats": 3,
    "timing_rounds": 0,
    "checkpoint_seconds": 0.0,
}


@functools.cache
def students(loss):
    dataset = load("synthetic-tiny")
    network = Network.of(make_model("cnn_teacher", dataset, nnx.Rngs(7)))
    return Students(make_config(loss=loss, **SETTINGS), Teacher(network, dataset))


def test_trunk_is_what_all_three_losses_reach():
    pupils = students("vkd_tokens")
    state = jax.eval_shape(lambda: pupils._pupil(0)).params
    each = pupils._reach.each(state)
    rows = zip(
        jax.tree_util.tree_leaves_with_path(state),
        *(jax.tree.leaves(mask) for mask in each),
        strict=True,
    )
    partial = {
        jax.tree_util.keystr(path).split("[")[2].strip("]'"): flags
        for (path, _), *flags in rows
        if not all(flags)
    }
    assert partial == {
        "projector": [False, False, True],
        "classifier": [True, False, False],
        "distill_classifier": [False, True, False],
    }


class KilledError(Exception):
    """Stands for a killed process."""


@pytest.mark.slow
def test_killed_training_of_three_losses_resumes_bit_for_bit(tmp_path):
    pupils = students("vkd_tokens")

    def killed(step):
        def wrapped(state, *args):
            if int(state.step) == 3:
                raise KilledError
            return step(state, *args)

        return wrapped

    whole = _students.fitted(pupils, tmp_path / "whole", "dto_kd")
    with pytest.raises(KilledError):
        _students.fitted(pupils, tmp_path / "killed", "dto_kd", wrap=killed)
    resumed = _students.fitted(pupils, tmp_path / "killed", "dto_kd")
    for key in ("test/accuracy", "train/loss/task", "train/loss/kl"):
        assert resumed[-1][key] == whole[-1][key]
    total = sum(whole[-1][f"train/weight/{n}"] for n in ("task", "kl", "distill"))
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    assert "gradient/cosine/kl" in whole[-1]


def test_dead_loss_does_not_stop_the_others():
    """The released projector is 0 from the second step on, and so is its gradient."""
    state, metrics = _students.train(students("vkd_released"), "dto_kd", steps=3)
    assert len(metrics) == 3
    assert metrics[0]["weight/distill"] > 0
    for seen in metrics[1:]:
        assert seen["weight/distill"] == 0
        assert seen["weight/task"] > 0 and seen["weight/kl"] > 0
        np.testing.assert_allclose(
            seen["weight/task"] + seen["weight/kl"], 1, rtol=1e-5
        )
    assert np.isfinite(state.params["network"]["cls_token"][...]).all()
