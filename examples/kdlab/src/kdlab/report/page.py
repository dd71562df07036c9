"""Renders the report as one self-contained HTML file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from kdlab.report.sections import make_sections
from kdlab.report.sources import Group, Source
from kdlab.report.svg import COLORS
from kdlab.runs import compare
from kdlab.runs.table import format_spread

HERE = Path(__file__).parent


def render(sources: Sequence[Source], skipped: Sequence[tuple[str, str]]) -> str:
    """Renders the page.

    Args:
        sources: At least one experiment with a finished run.
        skipped: Skipped places with reasons.

    Returns:
        The HTML.
    """
    groups = [group for source in sources for group in source.groups]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    template = environment.from_string((HERE / "page.html").read_text())
    head, rows, best = _results(sources)
    fields = compare.find_differences([source.settings for source in sources])
    return template.render(
        title="Distillation: " + ", ".join(source.name for source in sources),
        css=(HERE / "page.css").read_text(),
        script=(HERE / "page.js").read_text(),
        sources=[_source(source) for source in sources],
        best=best,
        head=head,
        rows=rows,
        note=compare.NOTE,
        differing=[
            [field, *(str(source.settings.get(field, "")) for source in sources)]
            for field in fields
        ],
        legend=[
            (group.name, f"c{i % COLORS} d{i // COLORS % 2}")
            for i, group in enumerate(groups)
        ],
        sections=[part for part in make_sections(groups) if part.charts or part.images],
        skipped=list(skipped),
    )


def _results(sources: Sequence[Source]) -> tuple[list[str], list[dict], str]:
    groups = [group for source in sources for group in source.groups]
    columns = compare.list_columns(one for group in groups for one in group.results)
    head = ["run", "seeds", *(column.head for column in columns), "ms/step"]
    head.append("step / kd")
    means = {group.name: _mean_accuracy(group) for group in groups}
    leader = max(means, key=lambda name: means[name])
    rows = []
    for source in sources:
        for group in source.groups:
            cells = [group.name, str(len(group.results))]
            cells += [format_spread(group.results, *column[1:]) for column in columns]
            times = source.step_times.get(group.method, {})
            for key, digits in (("milliseconds", 1), ("relative", 2)):
                cells.append(f"{times[key]:.{digits}f}" if key in times else "")
            rows.append({"cells": cells, "best": group.name == leader})
    if not np.isfinite(means[leader]) or len(groups) < 2:
        return head, rows, ""
    first = next(group for group in groups if group.name == leader)
    accuracy = format_spread(first.results, "accuracy/last", 100, 2)
    best = (
        f"Highest mean test accuracy after the last epoch: {leader}, {accuracy} %. "
        "Differences within the deviations are not significant."
    )
    return head, rows, best


def _mean_accuracy(group: Group) -> float:
    done = [one["accuracy/last"] for one in group.results if "accuracy/last" in one]
    lost = any("diverged" in one for one in group.results)
    return float(np.mean(done)) if done and not lost else -np.inf


def _source(source: Source) -> dict[str, Any]:
    """Returns the values of an experiment for the template."""
    last = source.starts[-1] if source.starts else {}
    commands = dict.fromkeys(
        str(start["command"]) for start in source.starts if start.get("command")
    )
    facts = [(key, str(value)) for key, value in source.settings.items()]
    facts += [(k, str(v)) for k, v in dict(last.get("environment", {})).items()]
    return {
        "name": source.name,
        "sentence": _sentence(source),
        "commands": list(commands),
        "origin": _origin(last),
        "facts": facts,
    }


def _sentence(source: Source) -> str:
    said = source.settings.get
    labels = "all" if said("labels") is None else said("labels")
    noise = float(said("noise") or 0)
    parts = [
        f"{said('dataset', 'unknown data')}: {said('teacher') or 'no teacher'} to "
        f"{said('student', 'unknown student')}, {labels} labels"
    ]
    if noise:
        parts.append(f"{noise:.0%} of them replaced at random")
    parts.append(f"{said('epochs', '?')} epochs, distillation loss {said('loss', '?')}")
    text = ", ".join(parts) + "."
    if "accuracy/last" in source.teacher:
        text += f" The teacher reaches {100 * source.teacher['accuracy/last']:.2f} %."
    return text


def _origin(start: Mapping[str, Any]) -> str:
    """Describes the date, revision and outcome of the last start."""
    if not start:
        return "Its starts were not recorded."
    git = start.get("git")
    revision = "an unknown revision"
    if isinstance(git, dict):
        changed = " with changes" if git.get("dirty") else ""
        revision = f"revision {str(git.get('revision'))[:12]}{changed}"
    return (
        f"Last started {start.get('started', 'at an unknown time')} from {revision}: "
        f"{start.get('outcome', 'unknown outcome')}."
    )
