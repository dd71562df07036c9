"""Reads finished runs for the report: groups of seeds by experiment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kdlab.minima import measure
from kdlab.runs import files
from kdlab.runs.compare import collect
from kdlab.runs.plot import History, read_history
from kdlab.train.methods import METHODS


class Group(NamedTuple):
    """Runs that differ only in their seed.

    Attributes:
        name: Name in the report: the method, with the experiment if there are several.
        method: Name of its folder.
        folder: Folder of its seeds.
        results: Results of the finished seeds.
        history: Metrics over epochs, ``[seeds, epochs]``; empty if all diverged.
        measures: Measures of the seeds that have them.
    """

    name: str
    method: str
    folder: Path
    results: list[dict[str, float]]
    history: History
    measures: list[measure.Measures]


class Source(NamedTuple):
    """One experiment.

    Attributes:
        name: Name of its folder.
        folder: Its folder.
        settings: Contents of its ``config.json``.
        starts: Contents of its ``record.json``, one entry per start.
        step_times: Milliseconds and relative time of a step by method.
        teacher: Result of the teacher.
        groups: Its finished runs.
    """

    name: str
    folder: Path
    settings: dict[str, Any]
    starts: list[dict[str, Any]]
    step_times: dict[str, dict[str, float]]
    teacher: dict[str, float]
    groups: list[Group]


def read(places: Sequence[Path]) -> tuple[list[Source], list[tuple[str, str]]]:
    """Reads all runs below some folders, skipping what cannot be read.

    Args:
        places: Folders of experiments, methods or seeds.

    Returns:
        The experiments with a finished run, and the skipped places with reasons.
    """
    skipped: list[tuple[str, str]] = []
    folders: dict[Path, dict[Path, None]] = {}
    for place in places:
        seeds = list(files.find_seed_folders(place))
        if not seeds:
            reason = "contains no run" if place.exists() else "does not exist"
            skipped.append((str(place), reason))
        for seed in seeds:
            group = seed.resolve().parent
            folders.setdefault(files.find_experiment(group), {})[group] = None
    sources = []
    for folder, groups in folders.items():
        found = [_group(group, skipped) for group in groups]
        found = sorted((group for group in found if group.results), key=_order)
        if found:
            sources.append(_source(folder, found))
    if len(sources) > 1:
        sources = [
            source._replace(
                groups=[
                    group._replace(name=f"{source.name}/{group.name}")
                    for group in source.groups
                ]
            )
            for source in sources
        ]
    return sources, skipped


def _group(folder: Path, skipped: list[tuple[str, str]]) -> Group:
    found = collect((folder,))
    skipped += found.skipped
    try:
        history = read_history(folder)
    except (OSError, ValueError, KeyError) as error:
        skipped.append((str(folder), f"curves cannot be read: {error}"))
        history = {}
    measures = [measure.read(seed) for seed in files.list_seed_folders(folder)]
    return Group(
        folder.name,
        folder.name,
        folder,
        found.groups[0].results if found.groups else [],
        history,
        [one for one in measures if one],
    )


def _source(folder: Path, groups: list[Group]) -> Source:
    starts = files.read_leniently(folder / files.RECORD, [])
    return Source(
        folder.name,
        folder,
        files.read_leniently(folder / files.CONFIG, {}),
        [start for start in starts if isinstance(start, dict)],
        files.read_leniently(folder / files.STEP_TIME, {}),
        files.read_leniently(folder / files.TEACHER, {}),
        groups,
    )


def _order(group: Group) -> tuple[int, str]:
    known = list(METHODS)
    place = known.index(group.method) if group.method in known else len(known)
    return place, group.method
