"""A teacher whose outputs are not finite teaches nobody."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import _archives
from kdlab.cli.main import main
from kdlab.data import open_dataset
from kdlab.experiment.finite import check_outputs
from kdlab.experiment.make import make_config
from kdlab.experiment.networks import make_model
from kdlab.models import weights
from kdlab.models.network import Network
from kdlab.train.evaluate import EVALUATION_BATCH

pytestmark = pytest.mark.usefixtures("standard")


def broken(dataset, value):
    """Makes a network with one NaN weight."""
    model = make_model("mlp", dataset, nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    last = jax.tree.leaves(state)[-1]
    nnx.update(
        model,
        jax.tree.map(lambda x: jnp.full_like(x, value) if x is last else x, state),
    )
    return model


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["kdlab", "distill", *map(str, arguments)])
    code = main()
    return code, capsys.readouterr().out


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("streamed", [False, True])
def test_it_is_refused_before_training(streamed, value, tmp_path, monkeypatch, capsys):
    _archives.write_folders(tmp_path / "data")
    name = f"{'stream:' * streamed}folder:{tmp_path / 'data'}"
    size = ["--image-size", 8] if streamed else []
    dataset = open_dataset(name, image_size=8 if streamed else None)
    path = tmp_path / "weights of a teacher"
    weights.save_orbax(path, broken(dataset, value))
    options = ["--dataset", name, *size, "--labels", "None", "--noise", 0]
    options += ["--teacher", "mlp", "--student", "mlp", "--methods", "kd"]
    options += ["--runs", tmp_path / "runs", "--teacher-weights", path]
    code, shown = command(monkeypatch, capsys, *options)
    assert code == 2
    assert (
        f"{path}: the outputs of mlp are not finite, first in batch 0 of the" in shown
    )
    assert not list((tmp_path / "runs").rglob("metrics.jsonl"))
    # Nor does a second start take it for checked.
    assert command(monkeypatch, capsys, *options) == (code, shown)


def test_the_first_bad_batch_is_named():
    """Only one training image is too bright for the network."""
    config = make_config(dataset="digits", teacher="mlp", student="mlp")
    dataset = open_dataset("digits")
    images = dataset.train_images // 2
    images[EVALUATION_BATCH + 7] = 255
    dataset = dataclasses.replace(
        dataset, train_images=images, test_images=dataset.test_images // 2
    )

    class Overflowing(nnx.Module):
        def __init__(self, inner):
            self.inner = inner

        def __call__(self, images):
            outputs = self.inner(images)
            bright = (images.min(axis=(1, 2, 3)) > 0)[:, None]
            return outputs._replace(logits=outputs.logits / (1 - bright))

    model = Overflowing(make_model("mlp", dataset, nnx.Rngs(0)))
    with pytest.raises(
        ValueError, match=r"batch 1 of the training images of digits \("
    ):
        check_outputs(Network.of(model), config, dataset, "a.pth")
