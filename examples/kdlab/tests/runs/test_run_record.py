"""Every start of a run and its outcome are recorded."""

import json
import subprocess

import jax
import pytest

from kdlab.runs import files
from kdlab.runs import record as run_record


def attempts(folder):
    return json.loads((folder / files.RECORD).read_text())


def test_every_start_is_kept_with_its_end(tmp_path):
    with run_record.record_start(tmp_path, ["--epochs", "2"]):
        (running,) = attempts(tmp_path)
        assert running["ended"] is None
        assert running["outcome"] == "running or killed"
    with pytest.raises(KeyboardInterrupt), run_record.record_start(tmp_path, []):
        raise KeyboardInterrupt
    with pytest.raises(ValueError), run_record.record_start(tmp_path, []):
        raise ValueError("no such data")
    first, second, third = attempts(tmp_path)
    assert first["command"] == "kdlab --epochs 2"
    assert [x["outcome"] for x in (first, second, third)] == [
        "finished",
        "interrupted",
        "ValueError: no such data",
    ]
    assert first["started"] <= first["ended"] <= second["started"]


def test_the_environment_names_versions_and_devices_but_no_machine(tmp_path):
    import socket

    with run_record.record_start(tmp_path, []):
        pass
    environment = attempts(tmp_path)[0]["environment"]
    assert environment["jax"] == jax.__version__
    assert environment["devices"] == jax.device_count()
    assert all(environment[name] for name in ("python", "jaxlib", "flax", "optax"))
    assert environment["kdopt"]
    assert socket.gethostname() not in json.dumps(environment)


def test_a_record_that_cannot_be_read_is_not_overwritten(tmp_path):
    path = tmp_path / files.RECORD
    path.write_text("[{")
    broken = pytest.raises(ValueError, match="move it away")
    with broken, run_record.record_start(tmp_path, []):
        pass
    assert path.read_text() == "[{"


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_revision_and_changes_of_a_checkout(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    revision = git(tmp_path, "rev-parse", "HEAD").strip()
    assert run_record.describe_git(tmp_path) == {"revision": revision, "dirty": False}
    (tmp_path / "notes.txt").write_text("not tracked")
    assert run_record.describe_git(tmp_path)["dirty"] is False
    (tmp_path / "code.py").write_text("2")
    assert run_record.describe_git(tmp_path)["dirty"] is True


def test_the_repository_around_an_installed_copy_is_not_ours(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "site-packages").mkdir()
    installed = run_record.describe_git(tmp_path / "site-packages")
    assert installed == "not in a git checkout"


def test_without_git_the_record_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_record.describe_git(tmp_path) == "not in a git checkout"
