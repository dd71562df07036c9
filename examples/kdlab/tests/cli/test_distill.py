"""The distillation example from end to end, on the digits of scikit-learn."""

import json
import re
import sys

import numpy as np
import pytest
from rich.console import Console

from kdlab.cli.main import main
from kdlab.experiment.make import make_config
from kdlab.experiment.run import run
from kdlab.runs.table import make_table
from kdlab.settings.config import NAMES
from kdlab.train.methods import METHODS

pytestmark = pytest.mark.usefixtures("standard")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A teacher and students of two hidden layers: seconds for all methods."""
    return {
        "runs": tmp_path_factory.mktemp("runs"),
        "dataset": "digits",
        "augment": "none",
        "teacher": "mlp",
        "student": "mlp",
        "labels": 100,
        "teacher_epochs": 3,
        "epochs": 2,
        "seeds": 1,
        "timing_rounds": 2,
    }


@pytest.fixture(scope="module")
def finished(settings):
    config = make_config(name="smoke", **settings)
    console = Console(record=True, width=160)
    run(config, console)
    return config, console.export_text()


def test_every_method_is_in_the_table(finished):
    config, shown = finished
    assert [row[0] for row in make_table(config)[1]] == list(METHODS)
    assert all(method in shown for method in METHODS)
    assert (config.directory / "table.md").read_text().count("\n|") == len(METHODS) + 1


def test_metrics_are_written_for_every_epoch(finished):
    config, _ = finished
    lines = (config.directory / "dto_kd" / "seed0" / "metrics.jsonl").read_text()
    records = [json.loads(line) for line in lines.splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    shares = [r["train/weight/task"] + r["train/weight/distill"] for r in records]
    np.testing.assert_allclose(shares, 1, rtol=1e-5)  # rescale="convex"
    assert -1 <= records[0]["gradient/cosine/distill"] <= 1


def test_figures_are_drawn(finished):
    config, _ = finished
    sizes = [f.stat().st_size for f in (config.directory / "figures").glob("*.png")]
    assert len(sizes) == 4
    assert min(sizes) > 10_000  # an empty canvas is smaller


def test_second_start_trains_nothing(finished):
    config, _ = finished
    files = {f: f.stat().st_mtime_ns for f in config.directory.rglob("result.json")}
    console = Console(record=True, width=160)
    run(config, console)
    assert "are done" in console.export_text()
    assert files == {f: f.stat().st_mtime_ns for f in files}


def test_interrupted_run_goes_on_to_the_same_end(finished, settings, monkeypatch):
    """Killed after the first epoch and its checkpoint, then started again."""
    whole, _ = finished
    config = make_config(name="cut", methods=("kd",), checkpoint_seconds=0, **settings)

    class KilledError(Exception):
        pass

    def two_epochs(start, *_):
        epochs = start()
        next(epochs)
        next(epochs)
        raise KilledError

    monkeypatch.setattr("kdlab.experiment.run.show_run", two_epochs)
    with pytest.raises(KilledError):
        run(config, Console(quiet=True))
    monkeypatch.undo()
    run(config, Console(quiet=True))
    results = [
        json.loads((c.directory / "kd" / "seed0" / "result.json").read_text())
        for c in (whole, config)
    ]
    for result in results:
        del result["seconds"]
    assert results[0] == results[1]
    attempts = json.loads((config.directory / "record.json").read_text())
    assert [x["outcome"] for x in attempts] == ["KilledError: ", "finished"]


def test_other_settings_under_the_same_name_are_refused(finished, settings):
    other = make_config(name="smoke", **(settings | {"labels": 50}))
    with pytest.raises(ValueError, match=r"labels was 100, is 50.*another --name"):
        run(other, Console(quiet=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "sgd"], "choose labels_only, kd, dot"),
        (["--student", "resnet9"], "resnet8"),
        (["--dataset", "mnist6k"], "mnist5k"),
        (["--noise", "2"], r"--noise must lie in \[0, 1\]"),
        (["--epochs", "0"], "at least 1"),
        (["--learning-rate", "-1"], "must be positive"),
    ],
)
def test_wrong_value_lists_the_right_ones(
    arguments, message, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(
        "sys.argv", ["kdlab", "distill", "--runs", str(tmp_path), *arguments]
    )
    with pytest.raises(SystemExit, match="2"):
        sys.exit(main())
    shown = capsys.readouterr()
    assert re.search(message, " ".join((shown.out + shown.err).split()))


def test_help_explains_every_field(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["kdlab", "distill", "--help"])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    for field in NAMES:
        assert f"--{field.replace('_', '-')}" in shown
