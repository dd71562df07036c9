"""What is logged can be read back, even after a kill and a resume."""

import importlib.util
import json
import sys
import types

import pytest

from kdlab.cli.main import main
from kdlab.runs import files, logs


def log(directory, done, values, **wanted):
    wanted = {"tensorboard": False, "wandb": False, **wanted}
    with logs.open_loggers(directory, done=done, **wanted) as write:
        for step, value in values.items():
            write({"loss/task": value}, step)


def test_events_are_read_back(tmp_path):
    log(tmp_path, 0, {10: 0.5, 20: 0.25}, tensorboard=True)
    assert logs.read_tensorboard(tmp_path / "tensorboard") == {
        "loss/task": [(10, 0.5), (20, 0.25)]
    }


def test_a_resumed_run_shows_every_step_once(tmp_path):
    """Killed at step 30 after a checkpoint at 10; both starts within a second."""
    log(tmp_path, 0, {10: 0.5, 20: 7, 30: 7}, tensorboard=True)
    log(tmp_path, 10, {20: 0.25, 30: 0.125}, tensorboard=True)
    assert logs.read_tensorboard(tmp_path / "tensorboard") == {
        "loss/task": [(10, 0.5), (20, 0.25), (30, 0.125)]
    }


def test_an_event_that_was_cut_off_is_left_out(tmp_path):
    log(tmp_path, 0, {10: 0.5, 20: 0.25}, tensorboard=True)
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    assert logs.read_tensorboard(tmp_path / "tensorboard") == {"loss/task": [(10, 0.5)]}


def test_nothing_is_written_or_imported_unasked(tmp_path, monkeypatch):
    for name in ("tensorboardX", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it would fail
    log(tmp_path, 0, {1: 0.5})
    assert not list(tmp_path.iterdir())


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in that records its arguments."""
    calls = []

    class Session:
        def log(self, metrics, step):
            calls.append((step, metrics))

        def finish(self):
            calls.append("finished")

    def init(**options):
        calls.append(options)
        return Session()

    module = types.ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


def test_wandb_goes_on_in_the_same_run(tmp_path, wandb):
    (tmp_path / "config.json").write_text('{"epochs": 3}')
    directory = tmp_path / "kd" / "seed0"
    directory.mkdir(parents=True)
    log(directory, 0, {10: 0.5}, wandb=True)
    log(directory, 10, {20: 0.25}, wandb=True)
    first, *points, _ = wandb
    assert points[:2] == [(10, {"loss/task": 0.5}), "finished"]
    second = points[2]
    assert first["id"] == second["id"]
    assert first["resume"] == "allow"
    assert first["config"] == {"epochs": 3}
    assert first["name"].endswith("kd/seed0")


def test_a_session_is_closed_when_training_fails(tmp_path, wandb):
    opened = logs.open_loggers(tmp_path, done=0, tensorboard=False, wandb=True)
    with pytest.raises(ZeroDivisionError), opened:
        raise ZeroDivisionError
    assert wandb[-1] == "finished"


@pytest.mark.parametrize(
    ("option", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")]
)
def test_a_missing_package_is_named_with_its_cure(option, package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    logs.check_installed(tensorboard=False, wandb=False)
    wanted = {"tensorboard": False, "wandb": False, option: True}
    with pytest.raises(ModuleNotFoundError, match=f"pip install {package}"):
        logs.check_installed(**wanted)


@pytest.mark.parametrize("command", ["distill", "losses"])
def test_it_is_named_before_anything_is_written(command, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    arguments = ["--tensorboard", "--runs", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["kdlab", command, *arguments])
    assert main() == 2
    assert "pip install tensorboardX" in " ".join(capsys.readouterr().out.split())
    assert not list(tmp_path.iterdir())


def test_lines_behind_a_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert files.cut_metrics(tmp_path, 0) == []
    for epoch in (1, 2, 3):
        files.append_metrics(tmp_path, {"epoch": epoch, "loss": 0.1 * epoch})
    before = path.read_text().splitlines()
    with path.open("a") as file:
        file.write('{"epoch": 4, "lo')  # killed while it was written
    kept = files.cut_metrics(tmp_path, 2)
    assert [record["epoch"] for record in kept] == [1, 2]
    assert path.read_text().splitlines() == before[:2]
    files.append_metrics(tmp_path, {"epoch": 3})
    assert json.loads(path.read_text().splitlines()[-1]) == {"epoch": 3}
