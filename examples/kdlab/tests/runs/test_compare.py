"""Comparing runs from their files, however damaged these are."""

import json

import numpy as np
import pytest
from rich.console import Console

from kdlab.cli.main import main
from kdlab.runs import compare, files
from kdlab.runs.claim import claim
from kdlab.runs.compare import CompareConfig, collect, find_differences
from kdlab.settings.config import configure

ACCURACIES = {"kd": (0.90, 0.92, 0.97), "dot": (0.8, 0.85)}


def write_run(folder, accuracy, seconds=(9.0, 2.0, 3.0), **changes):
    folder.mkdir(parents=True)
    result = {"accuracy/last": accuracy, "accuracy/best": accuracy + 0.01}
    result |= {"train/loss/task": 1.0, "conflict_rate": 0.5, "epoch/best": 3}
    files.write_result(folder, result | changes)
    for i, epoch_seconds in enumerate(seconds):
        files.append_metrics(folder, {"epoch": i, "seconds": epoch_seconds})


@pytest.fixture
def runs(tmp_path):
    for name, epochs in (("first", 3), ("second", 5)):
        for method, accuracies in ACCURACIES.items():
            for seed, accuracy in enumerate(accuracies):
                write_run(tmp_path / name / method / f"seed{seed}", accuracy)
        claim(configure(name=name, runs=tmp_path, epochs=epochs))
    return tmp_path


def shown(*places, **options):
    console = Console(record=True, width=200)
    compare.run(CompareConfig(places, **options), console)
    return console.export_text()


def test_means_and_sample_deviations_by_group(runs):
    text = shown(runs / "first")
    values = 100 * np.array(ACCURACIES["kd"])
    assert f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" in text
    assert f"{1 + values.mean():.2f} ± {values.std(ddof=1):.2f}" in text  # the best
    assert "2.5 ± 0.0" in text  # without the first epoch, which compiles
    assert "Settings that differ" not in text
    assert "skipped" not in text


def test_markdown_and_json_hold_the_same(runs):
    shown(runs / "first", runs / "second")
    text = (runs / "comparison.md").read_text()
    assert "| first/kd | 3 | 93.00 ± 3.61 |" in text
    assert "| epochs | 3 | 5 |" in text
    assert "noise" not in text
    assert "| name |" not in text
    groups = json.loads((runs / "comparison.json").read_text())["groups"]
    assert [group["name"] for group in groups] == [
        f"{name}/{method}" for name in ("first", "second") for method in ("dot", "kd")
    ]
    assert [r["accuracy/last"] for r in groups[0]["results"]] == [0.8, 0.85]


def test_what_is_given_twice_counts_once(runs):
    groups = collect([runs, runs / "first", runs / "first" / "kd" / "seed0"]).groups
    assert [len(group.results) for group in groups] == [2, 3, 2, 3]


def test_a_single_seed_has_no_deviation(runs):
    (group,) = collect([runs / "first" / "kd" / "seed0"]).groups
    assert (group.name, group.experiment) == ("kd", "first")
    ((_, _, (row,)),) = compare.make_tables(compare.Comparison([group], []))
    assert row[:3] == ["kd", "1", "90.00"]


def test_diverged_runs_are_counted_and_not_averaged(runs):
    write_run(runs / "first" / "kd" / "seed3", 0.1, diverged=2)
    assert "diverged (1 of 4)" in shown(runs / "first")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "not finished (3 epochs are done)"),
        ("", "result.json cannot be read"),
        ('{"accuracy/last": 0.5', "result.json cannot be read"),
        ("[1, 2]", "expected an object, got list"),
        ("{}", "result.json has no accuracy/last"),
        ('{"accuracy/last": "0.5"}', "holds values that are not numbers"),
        (b"\xff\xfe", "can't decode"),
    ],
)
def test_a_run_that_cannot_be_read_is_named_and_skipped(runs, content, reason):
    folder = runs / "first" / "kd" / "seed3"
    write_run(folder, 0.5)
    path = folder / "result.json"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    text = shown(runs / "first")
    assert f"skipped {folder}" in text
    assert reason in text
    assert "93.00 ± 3.61" in text  # from the other three


def test_broken_metrics_and_settings_are_named(runs):
    (runs / "first" / "kd" / "seed0" / "metrics.jsonl").write_text('{"epoch": 1')
    (runs / "first" / "config.json").write_text("{")
    text = shown(runs / "first")
    assert "metrics.jsonl cannot be read" in text
    assert "settings of" in text


def test_absent_and_empty_places_are_named(runs):
    (runs / "empty").mkdir()
    text = shown(runs / "first", runs / "empty", runs / "nowhere", out=runs / "out")
    assert f"skipped {runs / 'empty'}: contains no run" in text
    assert f"skipped {runs / 'nowhere'}: does not exist" in text
    assert (runs / "out" / "comparison.md").exists()


def test_nothing_to_compare_is_an_error_of_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["kdlab", "compare", str(tmp_path / "nowhere")])
    assert main() == 2
    assert "no finished run in" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_missing_fields_differ():
    assert find_differences([{"a": 1, "b": 2}, {"a": 1}]) == ["b"]
    assert find_differences([]) == []
